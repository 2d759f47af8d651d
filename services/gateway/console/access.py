"""Who may see and switch what all tenants share: the one place that the console asks."""

from collections.abc import Mapping
from ipaddress import ip_address

from headrace.core.errors import InvalidInput, PermissionDenied
from services.gateway.auth import Keys

OPERATOR = "operator"  # the tenant whose keys may operate the mesh where the keys file knows no scopes
LOOPBACK = "loopback"  # who operates a gateway without keys: whoever sits at its machine


def operator_of(keys: Keys, headers: Mapping[bytes, bytes], peer: str) -> str:
    """The operator's name, for the audit log. peer: the address that the connection came from.

    Without keys the gateway's own machine may operate it, by a name of its own: a page that somebody else's name
    server sends there does not count.

    Raises:
        Unauthenticated: no key, or an unknown one.
        PermissionDenied: another tenant's, or none and from another machine.
    """
    if keys.open:
        if _loopback(peer) and _loopback(_host(headers)):
            return LOOPBACK
        raise PermissionDenied("without API keys the console is open to this machine alone: HEADRACE_API_KEYS_FILE")
    key = keys.find(authorization_of(headers))
    if "operate" in key.scopes or (not keys.scoped and key.tenant == OPERATOR):
        return key.id or key.tenant
    raise PermissionDenied("a key with the scope operate is needed", field="authorization")


def authorization_of(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"authorization", b"").decode("latin-1")


def check_own_page(headers: Mapping[bytes, bytes]) -> None:
    """A change comes from the console's own page, or from no page at all. Raises PermissionDenied, InvalidInput."""
    origin = headers.get(b"origin", b"").decode("latin-1")
    site = headers.get(b"sec-fetch-site", b"none")
    if site not in (b"same-origin", b"none") or (origin and origin.partition("://")[2] != _named(headers)):
        raise PermissionDenied("changes are taken from the console's own page alone", field="origin")
    if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
        raise InvalidInput("the content type must be application/json", field="content-type")


def _named(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"host", b"").decode("latin-1")


def _host(headers: Mapping[bytes, bytes]) -> str:
    """Without its port."""
    name = _named(headers)
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # of a socket for both: ::ffff:127.0.0.1
    return (mapped or address).is_loopback
