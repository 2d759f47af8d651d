"""The cluster's compose file agrees with the code, and its nats-servers come up as configured and replicate.

Redis' users are tried with the chart's (test_chart_redis.py); the containers themselves by `make chaos-cluster`.
"""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import credentials
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.jetstream import api
from headrace.mesh.journal import Journal
from headrace.mesh.login import NatsLogin, redis_options
from headrace.mesh.permissions import role_of
from headrace.mesh.sentinels import parse
from headrace.mesh.servers import find_nats, free_port

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "deploy/compose.cluster.yaml"
CHOICE = re.compile(r"\$\{(\w+)(:?-)([^}]*)\}")
OURS = {
    "queue-manager-1": "queue_manager",
    "queue-manager-2": "queue_manager",
    "governor": "governor",
    "encoder": "encoder",
    "prefill": "prefill",
    "decode": "decode",
    "gateway-1": "gateway",
    "gateway-2": "gateway",
}
NUMBERS = (1, 2, 3)
SERVERS = [f"{kind}-{number}" for kind in ("nats", "redis", "sentinel") for number in NUMBERS]


def composed() -> dict[str, Any]:
    text = CHOICE.sub(lambda match: match[3], CLUSTER.read_text())
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_every_service_is_there_twice_but_for_the_governor() -> None:
    services = composed()["services"]
    assert set(services) == {*OURS, *SERVERS}
    for name, module in OURS.items():
        assert f"services.{module}" in " ".join(services[name]["command"])
    assert {name for name in OURS if services[name].get("deploy", {}).get("replicas") == 2} == {
        "encoder",
        "prefill",
        "decode",
    }


@pytest.mark.parametrize("name", [*OURS, *SERVERS])
def test_nobody_is_root_or_writes_anywhere_but_into_volumes(name: str) -> None:
    service = composed()["services"][name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] == "unless-stopped"
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    assert service["secrets"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("names", "networks"),
    [
        (SERVERS[:3], {"mesh", "bus"}),
        (SERVERS[3:], {"state"}),
        ([name for name in OURS if "gateway" not in name], {"mesh", "state"}),
        (["gateway-1", "gateway-2"], {"mesh", "state", "edge"}),
    ],
    ids=["NATS", "Redis and Sentinels", "inside", "gateways"],
)
def test_each_is_on_the_networks_that_it_needs(names: list[str], networks: set[str]) -> None:
    found = composed()
    for name in names:
        assert set(found["services"][name]["networks"]) == networks
    assert {name for name, network in found["networks"].items() if not network.get("internal")} == {"edge"}


@pytest.mark.parametrize(("name", "module"), OURS.items())
def test_the_code_reads_every_setting_and_secret(name: str, module: str, tmp_path: Path) -> None:
    credentials.prepare(tmp_path)
    found = composed()
    service = found["services"][name]
    environment = {
        key: str(value or "").replace("/run/secrets", str(tmp_path)) for key, value in service["environment"].items()
    }
    assert set(environment) - {"HEADRACE_CACHE_DIR"} <= {"HEADRACE_" + field.upper() for field in Settings.__slots__}
    settings = Settings.from_env(environment)
    assert settings.journal_replicas == len(settings.nats_url.split(",")) == len(NUMBERS)
    assert {host for host, _ in parse(settings.redis_url).sentinels} == {f"sentinel-{number}" for number in NUMBERS}
    assert NatsLogin.of(settings).user == role_of(f"services.{module}")
    assert redis_options(settings)["username"] == credentials.REDIS_USER
    for secret in service["secrets"]:
        assert (tmp_path / Path(found["secrets"][secret]["file"]).name).exists(), secret
    told = [value for value in environment.values() if value.startswith(str(tmp_path))]
    assert {Path(value).name for value in told} == set(service["secrets"])


def test_each_redis_has_the_address_that_it_tells() -> None:
    """Sentinels that knew names would wait ten seconds for that of a dead master, and in that time elect nobody."""
    services = composed()["services"]
    told = [services[f"redis-{number}"]["environment"]["REDIS_ADDRESS"] for number in NUMBERS]
    fixed = [services[f"redis-{number}"]["networks"]["state"]["ipv4_address"] for number in NUMBERS]
    assert told == fixed
    first = {services[name]["environment"]["REDIS_FIRST_MASTER"] for name in SERVERS[3:]}
    assert first == {told[0]}


def test_every_choice_is_told_in_the_example() -> None:
    told = set(re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {match[0] for match in CHOICE.findall(CLUSTER.read_text())} <= told


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[str]:
    """Three servers with the very configuration, at other places."""
    held = tmp_path / "run/secrets"
    held.parent.mkdir()
    credentials.prepare(held)
    routes = {number: free_port() for number in NUMBERS}
    ports = {number: free_port() for number in NUMBERS}
    with ExitStack() as stack:
        for number in NUMBERS:
            text = (ROOT / "deploy/nats-cluster.conf").read_text().replace("/var/lib/nats", str(tmp_path / str(number)))
            for other in NUMBERS:
                text = text.replace(f"bus-{other}:6222", f"127.0.0.1:{routes[other]}")
            text = text.replace("0.0.0.0:4222", f"127.0.0.1:{ports[number]}").replace("http: 0.0.0.0:8222", "")
            path = tmp_path / f"etc/nats/nats-{number}.conf"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            told = {k: str(v) for k, v in composed()["services"][f"nats-{number}"]["environment"].items()}
            told |= {
                "NATS_ADVERTISE": f"127.0.0.1:{ports[number]}",
                "NATS_ROUTES": f"127.0.0.1:{routes[number]}",
                "PATH": os.environ["PATH"],
            }
            command = [str(find_nats().path), "--config", str(path)]
            server = subprocess.Popen(command, env=told, stderr=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.kill)
        yield ",".join(f"nats://127.0.0.1:{port}" for port in ports.values())


async def met(settings: Settings) -> set[str]:
    """Whom a server tells a new client of; it may be up before it has found the others."""
    seen = set[str]()
    async with asyncio.timeout(10):
        while len(seen) < len(NUMBERS):
            bus = await Bus.open(settings, "qm-1")
            seen = set(bus.server_info.get("connect_urls", ()))
            await bus.close()
    return seen


@pytest.mark.timeout(90)
async def test_its_servers_replicate_and_let_in_who_has_a_password(nats: str, tmp_path: Path) -> None:
    creds = str(tmp_path / "run/secrets/nats-queue_manager.creds")
    env = {"HEADRACE_NATS_URL": nats, "HEADRACE_NATS_CREDS_FILE": creds, "HEADRACE_JOURNAL_REPLICAS": "3"}
    settings = Settings.from_env(env)
    bus = await Bus.open(settings, "qm-1")
    await Journal.open(bus, settings)
    config = (await api(bus, "STREAM.INFO.REQUESTS", {}))["config"]
    assert config["num_replicas"] == len(NUMBERS)
    await bus.close()
    assert await met(settings) == {url.removeprefix("nats://") for url in nats.split(",")}
    with pytest.raises(BadSetup):
        await asyncio.wait_for(Bus.connect(nats, "stranger"), 30.0)
