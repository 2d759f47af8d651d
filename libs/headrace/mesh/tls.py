"""TLS of this process: one certificate for all that it serves and calls, one authority that it trusts.

Files that change are read again: gRPC servers at the next handshake, HTTP and metrics within RELOAD_S, channels when
they are next opened. Members of a mesh know one another by the authority and by MEMBER_NAME, not by address.
"""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import grpc.aio

from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.logs import get_logger

# In every member's certificate, beside its addresses; client/door.py has the same word and does not import this.
MEMBER_NAME = "headrace.internal"
RELOAD_S = 10.0

Clients = Literal["inner", "all"]
_log = get_logger("tls")


@dataclass(frozen=True, slots=True)
class Tls:
    cert: Path
    key: Path
    ca: Path
    clients: Clients = "inner"  # who must show a certificate: callers of inner services, or of the gateway's API too

    @staticmethod
    def of(settings: Settings) -> "Tls | None":
        """None: nothing is encrypted. Raises BadSetup: one file without the others, or not readable."""
        said = {name: getattr(settings, name) for name in ("tls_cert", "tls_key", "tls_ca")}
        if not any(said.values()):
            return None
        for name, path in said.items():
            if not path:
                raise BadSetup(
                    f"HEADRACE_{name.upper()} is missing: TLS needs a certificate, its key and the authority"
                )
        cert, key, ca = (Path(path) for path in said.values())
        tls = Tls(cert, key, ca, "all" if settings.tls_clients == "all" else "inner")
        tls.server_context(clients=False)
        return tls

    # --- gRPC ---

    def server_credentials(self, *, clients: bool) -> grpc.ServerCredentials:
        """clients: callers must show a certificate of the authority. The files are looked at in each handshake."""
        seen = [self._stamp()]

        def fetch() -> Any:
            stamp = self._stamp()
            if stamp == seen[0]:
                return None
            try:
                fresh = self._configuration(clients)
            except OSError as error:
                _log.error("certificate_unreadable", why=str(error))
                return None
            seen[0] = stamp
            return fresh

        return grpc.dynamic_ssl_server_credentials(self._configuration(clients), fetch, clients)

    def _configuration(self, clients: bool) -> Any:
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], self.ca.read_bytes() if clients else None)

    def channel(self, address: str, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
        """To another member of this mesh."""
        credentials = grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())
        named = [*options, ("grpc.ssl_target_name_override", MEMBER_NAME)]
        return grpc.aio.secure_channel(address, credentials, options=named)

    # --- everything else ---

    def server_context(self, *, clients: bool) -> ssl.SSLContext:
        """Raises BadSetup: the files cannot be read, or do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(context)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """For NATS and Redis, whose certificates must name the address that they are called by."""
        context = ssl.create_default_context(cafile=str(self.ca))
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.cert, self.key)
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:  # SSLError is an OSError whose strerror says nothing
            raise BadSetup(f"HEADRACE_TLS_CERT={str(self.cert)!r}, _KEY, _CA: {error}") from error

    def _stamp(self) -> tuple[float, ...]:
        try:
            return tuple(path.stat().st_mtime for path in (self.cert, self.key, self.ca))
        except OSError:
            return ()

    async def follow(self, *contexts: ssl.SSLContext) -> None:
        """For ever: renewed files count for the next handshakes of these contexts."""
        seen = self._stamp()
        while True:
            await asyncio.sleep(RELOAD_S)
            if (stamp := self._stamp()) == seen:
                continue
            try:
                for context in contexts:
                    self._load(context)
            except BadSetup as error:  # half of them renewed: the next look finds the rest
                _log.error("certificate_not_renewed", why=str(error))
            else:
                seen = stamp
                _log.info("certificate_renewed")
