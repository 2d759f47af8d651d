"""Where a service may listen: on loopback whatever else is set; wider only behind keys or certificates.

HEADRACE_INSECURE=on says that a network that is nobody else's is meant (as between containers).
"""

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass

import grpc

from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.tls import Tls


def is_loopback(address: str) -> bool:
    """host:port; a name other than localhost may lead anywhere."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_inner(settings: Settings, tls: Tls | None) -> None:
    """Of queue manager, governor and workers: whoever reaches them commands or reads. Raises BadSetup."""
    if settings.insecure or tls is not None:
        return
    for name in ("grpc_addr", "metrics_addr"):
        _refuse_wide(name, getattr(settings, name), "set HEADRACE_TLS_CERT, _KEY and _CA")


def check_api(settings: Settings, tls: Tls | None, *, keyed: bool) -> None:
    """Of the gateway. In a container the published address counts, where it is said. Raises BadSetup."""
    if settings.insecure:
        return
    said = f"{settings.published}:0" if settings.published else ""
    if not keyed:
        for name in ("http_addr", "grpc_addr"):
            _refuse_wide(name, said or getattr(settings, name), "set HEADRACE_API_KEYS_FILE", getattr(settings, name))
    if tls is None and not said:  # the metrics port is not among those that are published
        _refuse_wide("metrics_addr", settings.metrics_addr, "set HEADRACE_TLS_CERT, _KEY and _CA")


@dataclass(slots=True)
class Inner:
    """What an inner service listens with: callers of gRPC and of metrics show a certificate, where there is TLS."""

    credentials: grpc.ServerCredentials | None = None
    context: ssl.SSLContext | None = None
    _following: asyncio.Task[None] | None = None

    @staticmethod
    def of(settings: Settings) -> "Inner":
        """Raises BadSetup: it would listen beyond loopback without TLS."""
        tls = Tls.of(settings)
        check_inner(settings, tls)
        if tls is None:
            return Inner()
        context = tls.server_context(clients=True)
        following = asyncio.get_running_loop().create_task(tls.follow(context), name="certificates")
        return Inner(tls.server_credentials(clients=True), context, following)

    def close(self) -> None:
        if self._following is not None:
            self._following.cancel()


def _refuse_wide(name: str, address: str, remedy: str, bound: str = "") -> None:
    if not is_loopback(address):
        raise BadSetup(
            f"HEADRACE_{name.upper()}={bound or address}: others could reach it ({address.rpartition(':')[0]}); "
            f"{remedy}, listen on 127.0.0.1, or say HEADRACE_INSECURE=on where the network is nobody else's"
        )
