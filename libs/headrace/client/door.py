"""How a client gets in: an API key, and TLS with the certificate authority that it trusts and a certificate of its own.

From HEADRACE_API_KEY, HEADRACE_TLS_CA, HEADRACE_TLS_CERT and HEADRACE_TLS_KEY where nothing else is said.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

# Every certificate of a mesh carries it (`headrace certs`): members move and are scaled, so their addresses say little.
MEMBER_NAME = "headrace.internal"


@dataclass(frozen=True, slots=True)
class Door:
    """Paths of PEM files; without `ca` nothing is encrypted."""

    api_key: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    # What the server's certificate must say instead of its address: for services of the mesh itself.
    name: str = ""

    @staticmethod
    def of_env(env: Mapping[str, str] = os.environ, name: str = "") -> "Door":
        get = env.get
        files = (get("HEADRACE_TLS_CA", ""), get("HEADRACE_TLS_CERT", ""), get("HEADRACE_TLS_KEY", ""))
        return Door(get("HEADRACE_API_KEY", ""), *files, name)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def channel(self, address: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
        if not self.ca:
            return grpc.insecure_channel(address, options=options)
        return grpc.secure_channel(address, self._credentials(), options=[*options, *self._named()])

    def aio_channel(self, address: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
        if not self.ca:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, self._credentials(), options=[*options, *self._named()])

    def _credentials(self) -> grpc.ChannelCredentials:
        pair = (Path(self.key).read_bytes(), Path(self.cert).read_bytes()) if self.cert and self.key else (None, None)
        return grpc.ssl_channel_credentials(Path(self.ca).read_bytes(), *pair)

    def _named(self) -> list[tuple[str, Any]]:
        return [("grpc.ssl_target_name_override", self.name)] if self.name else []
