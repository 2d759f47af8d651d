"""The mesh that is drilled: where its doors are, and with which papers they open."""

import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from headrace.cli import runstate
from headrace.cli.runstate import RunState
from headrace.client.door import MEMBER_NAME, Door


@dataclass(frozen=True, slots=True)
class Target:
    state: RunState
    door: Door = field(repr=False)
    data_dir: Path

    @staticmethod
    def of(state: RunState, data_dir: Path) -> "Target":
        return Target(state, runstate.door(state), data_dir)

    @property
    def inner(self) -> Door:
        """For services of the mesh itself."""
        return replace(self.door, name=MEMBER_NAME)

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """Of the gateways' HTTP."""
        parts = [urlsplit(url) for url in self.state.http_urls]
        return [(str(part.hostname), int(part.port or 80)) for part in parts]

    @property
    def tls(self) -> ssl.SSLContext | None:
        if not self.door.ca:
            return None
        context = ssl.create_default_context(cafile=self.door.ca)
        if self.door.cert and self.door.key:
            context.load_cert_chain(self.door.cert, self.door.key)
        return context
