"""The containers of deploy/compose.cluster.yaml: brought up, looked into, hit and healed by docker's own commands."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.cli import credentials
from headrace.mesh.servers import free_port

ROOT = Path(__file__).parents[3]
INSIDE = Path(__file__).parent / "inside.py"
FILES = ("deploy/compose.cluster.yaml", "tests/chaos/cluster/compose.chaos.yaml")
LOOKS_FROM = "governor"  # the one service that no fault hits, on the networks of all others
WORKERS = 6
STREAMS = ("REQUESTS", "RESULTS", "LEADER")
UP_S, WHOLE_S, COMMAND_S = 900, 240.0, 120.0
MEMBER = 10001  # whom the containers run as


class DockerFailed(Exception):
    """The command, and what it said."""


@dataclass(frozen=True, slots=True)
class Link:
    """How a container is on a network: what connecting it again takes."""

    network: str
    aliases: tuple[str, ...]
    address: str  # empty: whichever is free


@dataclass(slots=True)
class Containers:
    project: str
    secrets: Path
    environment: dict[str, str] = field(default_factory=dict)
    _looker: asyncio.subprocess.Process | None = None

    def __post_init__(self) -> None:
        names = ("HTTP_PORT", "GRPC_PORT", "HTTP_PORT_2", "GRPC_PORT_2")
        ports = {name: os.environ.get(name) or str(free_port()) for name in names}
        told = {"HEADRACE_SECRETS_DIR": str(self.secrets), "HEADRACE_API_KEYS_FILE": "", "COMPOSE_IGNORE_ORPHANS": "1"}
        self.environment = {**os.environ, **ports, **told}

    @property
    def gateways(self) -> list[str]:
        return [f"127.0.0.1:{self.environment[name]}" for name in ("GRPC_PORT", "GRPC_PORT_2")]

    # --- up and down ---

    def prepare(self) -> None:
        credentials.prepare(self.secrets)
        if os.geteuid() == 0:
            for path in (self.secrets, *self.secrets.iterdir()):
                os.chown(path, MEMBER, MEMBER)

    async def up(self) -> None:
        """One image after the other: a builder without BuildKit would do the same work for each service at once."""
        for service in ("nats-1", "redis-1", "gateway-1"):
            await self.compose("build", "--quiet", service, within_s=UP_S)
        await self.compose("up", "--detach", "--wait", "--wait-timeout", str(UP_S), within_s=UP_S)

    async def leave(self) -> None:
        """Looks no more."""
        if self._looker is not None:
            self._looker.stdin and self._looker.stdin.close()  # type: ignore[func-returns-value]
            await self._looker.wait()
            self._looker = None

    async def down(self) -> None:
        await self.leave()
        await self.compose("down", "--volumes", "--timeout", "5")

    async def compose(self, *words: str, given: bytes = b"", within_s: float = COMMAND_S) -> str:
        return await self.docker(*self._compose_words(), *words, given=given, within_s=within_s)

    def _compose_words(self) -> list[str]:
        files = [word for name in FILES for word in ("--file", name)]
        return [
            "compose",
            "--project-directory",
            ".",
            "--project-name",
            self.project,
            "--env-file",
            "/dev/null",
            *files,
        ]

    async def docker(self, *words: str, given: bytes = b"", within_s: float = COMMAND_S) -> str:
        """What it printed. Raises DockerFailed."""
        process = await asyncio.create_subprocess_exec(
            "docker", *words, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(within_s):
                out, errors = await process.communicate(given)
        except TimeoutError:
            process.kill()
            raise DockerFailed(f"docker {' '.join(words)}: not done in {within_s:.0f} s") from None
        if process.returncode:
            raise DockerFailed(f"docker {' '.join(words)}: {errors.decode()[-500:]}")
        return out.decode()

    # --- looking ---

    async def look(self) -> dict[str, Any]:
        """As tests/chaos/cluster/inside.py tells it."""
        if self._looker is None:
            command = [*self._compose_words(), "exec", "-T", LOOKS_FROM, "python", "-c", INSIDE.read_text()]
            self._looker = await asyncio.create_subprocess_exec(
                "docker", *command, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        looker = self._looker
        assert looker.stdin is not None
        assert looker.stdout is not None
        looker.stdin.write(b"\n")
        async with asyncio.timeout(COMMAND_S):
            line = await looker.stdout.readline()
        if not line:
            self._looker = None
            raise DockerFailed(f"{LOOKS_FROM} tells nothing")
        told: dict[str, Any] = json.loads(line)
        return told

    async def files(self) -> dict[str, int]:
        """Media and tensors that lie in the volumes; names with a dot are locks and pages that wait."""
        count = "find /var/lib/headrace/{} -type f ! -name '.*' | wc -l"
        blobs = await self.compose("exec", "-T", "gateway-1", "sh", "-c", count.format("blobs"))
        tensors = await self.compose("exec", "-T", "--index", "1", "decode", "sh", "-c", count.format("tensors"))
        return {name: int(text) for name, text in (("blobs", blobs), ("tensor files", tensors)) if int(text)}

    async def until_whole(self) -> dict[str, Any]:
        """Everybody is there, every replica is up to date, and who leads is known."""
        until, why = time.monotonic() + WHOLE_S, "nothing was told"
        while time.monotonic() < until:
            try:
                told = await self.look()
            except (DockerFailed, ValueError) as error:
                why = str(error)
            else:
                why = _lacking(told)
                if not why:
                    return told
            await asyncio.sleep(1.0)
        raise DockerFailed(f"not whole after {WHOLE_S:.0f} s: {why}")

    async def of_service(self, service: str) -> list[str]:
        """Its containers, by name; a service of one number has it in its own name."""
        listed = await self.compose("ps", "--all", "--format", "{{.Name}}", service)
        return sorted(listed.split())

    # --- hitting and healing ---

    async def links(self, container: str, networks: tuple[str, ...]) -> list[Link]:
        found: Mapping[str, Any] = json.loads(
            await self.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", container)
        )
        links = []
        for name in networks:
            network = f"{self.project}_{name}"
            settings = found[network]
            fixed = (settings.get("IPAMConfig") or {}).get("IPv4Address", "")
            links.append(Link(network, tuple(settings.get("Aliases") or ()), fixed))
        return links

    async def cut(self, container: str, links: list[Link]) -> None:
        for link in links:
            await self.docker("network", "disconnect", link.network, container)

    async def join(self, container: str, links: list[Link]) -> None:
        for link in links:
            words = [word for alias in link.aliases for word in ("--alias", alias)]
            words += ["--ip", link.address] if link.address else []
            await self.docker("network", "connect", *words, link.network, container)


def _lacking(told: dict[str, Any]) -> str:
    """Empty: nothing."""
    if told["silent"] or "queue_manager" not in told or "redis" not in told:
        return f"silent: {told['silent'] or 'queue managers or Redis'}"
    if len(told["workers"]) < WORKERS:
        return f"workers: {told['workers']}"
    streams = told["streams"]
    behind = [name for name in STREAMS if streams.get(name, {}).get("current") != 2]
    return f"streams without all replicas: {behind}" if behind else ""
