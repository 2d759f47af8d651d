"""API keys: a file of "<key> <tenant>" lines; without one the gateway is open and everybody is one tenant."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from headrace.core.errors import Unauthenticated
from headrace.mesh.errors import BadSetup

OPEN_TENANT = "default"


class Keys:
    """Keys are looked up by their hash, so that the time of a look-up tells nothing about a key."""

    def __init__(self, tenants: Mapping[bytes, str] | None = None) -> None:
        self._tenants = tenants

    @staticmethod
    def read(path: str) -> "Keys":
        """Raises BadSetup: no such file, or a line that is not "<key> <tenant>": its number is said, never the key."""
        if not path:
            return Keys()
        tenants = {}
        try:
            lines = Path(path).read_text().splitlines()
        except OSError as error:
            raise BadSetup(f"HEADRACE_API_KEYS_FILE={path!r}: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) != 2:
                raise BadSetup(f"{path}:{number}: want <key> <tenant>; see HEADRACE_API_KEYS_FILE")
            tenants[_digest(words[0])] = words[1]
        return Keys(tenants)

    @property
    def open(self) -> bool:
        """Nobody needs a key."""
        return self._tenants is None

    def tenant(self, authorization: str) -> str:
        """The tenant of an Authorization header ("Bearer <key>").

        Raises:
            Unauthenticated: no key, or an unknown one.
        """
        if self._tenants is None:
            return OPEN_TENANT
        scheme, _, key = authorization.partition(" ")
        tenant = self._tenants.get(_digest(key.strip())) if scheme.lower() == "bearer" else None
        if tenant is None:
            raise Unauthenticated("a valid API key is needed: Authorization: Bearer <key>", field="authorization")
        return tenant


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
