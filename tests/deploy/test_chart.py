"""The Helm chart, rendered by helm itself, agrees with the product: entry points, settings, ports, files, rights.

`make chart` brings helm and runs this after validating every object; without helm it is skipped. No cluster is in it.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import credentials
from headrace.mesh.binding import check_api, check_inner
from headrace.mesh.config import Settings
from headrace.mesh.login import NatsLogin, redis_options
from headrace.mesh.permissions import role_of
from headrace.mesh.servers import find_nats
from headrace.mesh.tls import Tls
from headrace.worker.process import parse
from services.governor.options import Options
from services.queue_manager.scaling_options import ScalingOptions

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/headrace"
SETS = sorted(path.stem for path in (ROOT / "deploy/helm/sets").glob("*.yaml"))
KNOWN = [os.environ.get("HEADRACE_HELM", ""), str(ROOT / ".venv-chart/bin/helm"), shutil.which("helm") or ""]
HELM = next((path for path in KNOWN if path and Path(path).exists()), "")
pytestmark = pytest.mark.skipif(not HELM, reason="no helm: `make chart` brings one")

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
PRIVILEGED = "node-agent"  # sets power limits
OUTSIDE = {53, 80, 443, 4318, 6443, 7422}  # names, media, the collector, Kubernetes, the doors' NATS
Object = Mapping[str, Any]


@cache
def rendered(name: str) -> tuple[Object, ...]:
    command = [HELM, "template", "headrace", str(CHART), "--namespace", "trial"]
    command += ["--values", str(ROOT / f"deploy/helm/sets/{name}.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def refused(*values: str) -> str:
    sets = [word for value in values for word in ("--set", value)]
    command = [HELM, "template", "headrace", str(CHART), *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode, values
    return done.stderr


def of_kind(name: str, *kinds: str) -> list[Object]:
    return [each for each in rendered(name) if each["kind"] in kinds]


def component(one: Object) -> str:
    labels: Mapping[str, str] = one["metadata"]["labels"]
    return labels["app.kubernetes.io/component"]


def containers(name: str) -> Iterator[tuple[str, Object, Object]]:
    for one in of_kind(name, *WORKLOADS):
        pod = one["spec"]["template"]["spec"]
        for container in pod["containers"]:
            yield component(one), pod, container


def environment(name: str, container: Object) -> dict[str, str]:
    (shared,) = [each for each in of_kind(name, "ConfigMap") if each["metadata"]["name"] == "headrace-settings"]
    own = {each["name"]: each.get("value", "10.0.0.7") for each in container.get("env", ())}
    return {**shared["data"], **own} if "envFrom" in container else own


def services(name: str) -> Iterator[tuple[str, Object, Object]]:
    """Pods of the six services: component, pod, container."""
    for who, pod, container in containers(name):
        if "envFrom" in container and who != PRIVILEGED:
            yield who, pod, container


@pytest.mark.parametrize("name", SETS)
def test_every_container_is_asked_how_it_is_and_has_bounds(name: str) -> None:
    for who, _, container in containers(name):
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), who
        assert container["resources"]["limits"]["memory"], who
        assert container["resources"]["requests"]["cpu"], who
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]
            assert asked.get("httpGet", {}).get("port", next(iter(ports))) in ports
            assert asked.get("grpc", {}).get("port", next(iter(ports.values()))) in ports.values()
            command = asked.get("exec", {}).get("command", [])
            assert command[:2] in ([], ["python", "/opt/health.py"], ["sh", "/etc/redis/start.sh"])


@pytest.mark.parametrize("name", SETS)
def test_pods_keep_the_restricted_profile(name: str) -> None:
    for who, pod, container in containers(name):
        inside, outside = container["securityContext"], pod["securityContext"]
        assert inside["readOnlyRootFilesystem"] is True
        assert inside["capabilities"]["drop"] == ["ALL"]
        assert outside["seccompProfile"] == {"type": "RuntimeDefault"}
        if who == PRIVILEGED:
            assert inside["capabilities"].get("add") == ["SYS_ADMIN"]
            continue
        assert inside["allowPrivilegeEscalation"] is False
        assert (outside["runAsNonRoot"], outside["runAsUser"]) == (True, 10001)
        assert "add" not in inside["capabilities"]
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))


@pytest.mark.parametrize("name", SETS)
def test_a_token_is_mounted_where_kubernetes_is_asked_and_nowhere_else(name: str) -> None:
    with_token = {who for who, pod, _ in containers(name) if pod["automountServiceAccountToken"]}
    assert with_token == ({"queue-manager"} if name == "scaled" else set())
    assert len(of_kind(name, "Role")) == (name == "scaled")


@pytest.mark.parametrize("name", SETS)
def test_entry_points_are_the_images_own(name: str) -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    assert 'CMD ["python", "-m", "services.gateway"]' in dockerfile
    for _, _, container in containers(name):
        command = container["command"]
        if command[0] == "python":
            path = ROOT / command[2].replace(".", "/")
            assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()
        else:
            assert command[0] in ("nats-server", "sh")
        assert command[0] != "nats-server" or '"nats-server", "--config"' in dockerfile
    assert {who for who, _, _ in services(name)} >= {"gateway", "queue-manager"}


@pytest.mark.parametrize("name", SETS)
def test_the_product_reads_every_setting_and_takes_it(name: str, tmp_path: Path) -> None:
    """Each process's own reader of its settings, with the files that `headrace certs` makes."""
    credentials.prepare(tmp_path)
    said = {word for path in ("libs/headrace", "services") for word in _variables(ROOT / path)}
    fields = {"HEADRACE_" + field.upper() for field in Settings.__slots__}
    for who, pod, container in services(name):
        told = environment(name, container)
        assert {key for key in told if key.startswith("HEADRACE_")} <= said | fields, who
        _mounted(pod, container, told, tmp_path)
        found = {key: value.replace("/run/headrace", str(tmp_path)) for key, value in told.items()}
        settings, module = Settings.from_env(found), container["command"][2]
        assert settings.advertised(50051) == "10.0.0.7:50051"
        tls = Tls.of(settings)
        assert (tls is None) == settings.insecure == (name == "small")
        if tls is not None:
            assert NatsLogin.of(settings).user == role_of(module)
            assert redis_options(settings)["username"] == "headrace"
        if who == "gateway":
            check_api(settings, tls, keyed=bool(settings.api_keys_file))
        else:
            check_inner(settings, tls)
        if module.endswith(("encoder", "prefill", "decode")):
            words = [word.replace("$(POD_NAME)", f"headrace-{who}-7d4b9c6f5d-x2x9k") for word in container["args"]]
            assert parse(words, found, "decode").stages
        if who == "governor":
            Options.from_env(found | {"HEADRACE_ROWS": ""})


def _variables(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        yield from re.findall(r"HEADRACE_[A-Z_]*[A-Z]", path.read_text())


def _mounted(pod: Object, container: Object, told: Mapping[str, str], papers: Path) -> None:
    """Every path that it is told lies in a volume, and every file of the Secret is one that is made."""
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    items = {item["key"] for item in volumes.get("papers", {}).get("secret", {}).get("items", ())}
    assert all((papers / item).is_file() for item in items), items
    for key, value in told.items():
        if value.startswith("/run/headrace/"):
            assert value.removeprefix("/run/headrace/") in items, key
        elif value.startswith("/var/lib/headrace/"):
            assert value in mounts, key


@pytest.mark.parametrize("name", SETS)
def test_the_grace_is_longer_than_the_drain(name: str) -> None:
    for who, pod, container in services(name):
        drain_s = float(environment(name, container).get("HEADRACE_DRAIN_S", 30.0))
        before_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod["terminationGracePeriodSeconds"] >= drain_s + before_s + 10, who


# --- the network ---


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _pods(name: str) -> dict[str, Mapping[str, str]]:
    return {component(one): one["spec"]["template"]["metadata"]["labels"] for one in of_kind(name, *WORKLOADS)}


@pytest.mark.parametrize("name", SETS)
def test_every_port_of_a_policy_is_one_of_a_service(name: str) -> None:
    offered = {port["port"] for one in of_kind(name, "Service") for port in one["spec"]["ports"]}
    elsewhere = {4222, 6379, 26379} if name == "elsewhere" else set()
    for policy in of_kind(name, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress") or ():
            assert {port["port"] for port in rule["ports"]} <= offered, policy["metadata"]["name"]
        for rule in policy["spec"].get("egress") or ():
            assert {port["port"] for port in rule["ports"]} <= offered | OUTSIDE | elsewhere, policy["metadata"]["name"]


@pytest.mark.parametrize("name", SETS)
def test_services_lead_to_ports_of_pods_that_are_there(name: str) -> None:
    ports = {who: {} for who, _, _ in containers(name)}  # type: dict[str, dict[str, int]]
    for who, _, container in containers(name):
        ports[who] |= {port["name"]: port["containerPort"] for port in container["ports"]}
    for one in of_kind(name, "Service"):
        selected = [who for who, labels in _pods(name).items() if _selects(one["spec"]["selector"], labels)]
        assert len(selected) == 1, one["metadata"]["name"]
        for port in one["spec"]["ports"]:
            assert ports[selected[0]][port["targetPort"]] == port["port"]


@pytest.mark.parametrize("name", SETS)
def test_who_may_call_out_is_let_in_and_nobody_else(name: str) -> None:
    """Edges as the sender's policy has them are edges as the receiver's has them, and only the mesh's own."""
    edges: dict[str, set[tuple[str, str, int]]] = {"ingress": set(), "egress": set()}
    pods = _pods(name)
    for policy in of_kind(name, "NetworkPolicy"):
        here = [who for who, labels in pods.items() if _selects(policy["spec"]["podSelector"]["matchLabels"], labels)]
        for way, key in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(way) or ():
                for peer in rule.get(key, ()):
                    if set(peer) != {"podSelector"}:
                        continue
                    there = [
                        who for who, labels in pods.items() if _selects(peer["podSelector"]["matchLabels"], labels)
                    ]
                    pairs = [(h, t) if way == "egress" else (t, h) for h in here for t in there]
                    edges[way] |= {(*pair, port["port"]) for pair in pairs for port in rule["ports"]}
    assert edges["ingress"] == edges["egress"]
    found = {(one, other) for one, other, _ in edges["egress"]}
    assert ("gateway", "queue-manager") in found
    assert not {(one, other) for one, other in found if other == "gateway"}
    assert not {(one, other) for one, other in found if one in ("nats", "redis") and one != other}


@pytest.mark.parametrize("name", SETS)
def test_each_kind_of_pod_has_a_budget_that_lets_one_go(name: str) -> None:
    budgets = {component(one): one["spec"] for one in of_kind(name, "PodDisruptionBudget")}
    pods = _pods(name)
    assert set(budgets) == set(pods) - {PRIVILEGED}
    for who, budget in budgets.items():
        assert budget["maxUnavailable"] == 1
        assert [other for other, labels in pods.items() if _selects(budget["selector"]["matchLabels"], labels)] == [who]


# --- scaling ---


def test_the_autoscaler_may_scale_what_it_is_told_to_and_nothing_else() -> None:
    (container,) = [each for who, _, each in services("scaled") if who == "queue-manager"]
    options = ScalingOptions.from_env(environment("scaled", container))
    assert options is not None
    assert (options.policy, options.way, options.instances_max) == ("headrace", "kubernetes", 9)
    assert [(pool.name, pool.least, pool.most) for pool in sorted(options.pools, key=lambda pool: pool.name)] == [
        ("decode", 1, 3),
        ("encode", 0, 4),
        ("prefill", 1, 3),
    ]
    deployments = {one["metadata"]["name"]: one for one in of_kind("scaled", "Deployment")}
    names = {pool.deployment_name for pool in options.pools}
    assert names <= set(deployments)
    assert not [name for name in names if "replicas" in deployments[name]["spec"]], "an upgrade would set them back"
    (role,) = of_kind("scaled", "Role")
    (rule,) = role["rules"]
    assert rule == {
        "apiGroups": ["apps"],
        "resources": ["deployments/scale"],
        "resourceNames": sorted(names),
        "verbs": ["get", "patch"],
    }
    (binding,) = of_kind("scaled", "RoleBinding")
    assert binding["subjects"][0]["name"] == "headrace-queue-manager"


@pytest.mark.parametrize("name", SETS)
def test_horizontal_autoscalers_scale_what_is_there(name: str) -> None:
    deployments = {one["metadata"]["name"]: one for one in of_kind(name, "Deployment")}
    for one in of_kind(name, "HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]["name"]
        assert "replicas" not in deployments[target]["spec"]
    assert len(of_kind(name, "HorizontalPodAutoscaler")) == (name in ("gpus", "elsewhere"))


def test_workers_with_gpus_ask_for_them_and_run_the_image_that_can() -> None:
    gpus = {
        who: int(container["resources"]["limits"].get("nvidia.com/gpu", 0)) for who, _, container in services("gpus")
    }
    assert {who: count for who, count in gpus.items() if count} == {
        "encoder-image": 1,
        "prefill": 4,
        "decode": 4,
        "text": 1,
    }
    for who, _, container in services("gpus"):
        assert ("gpu" in container["image"]) == (gpus[who] > 0)


# --- wrong values ---


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["gateway.replicaz=2"], "replicaz"),
        (["autoscaling.mode=hpx"], "/autoscaling/mode"),
        (["pools.encoder.modalities[0]=smell"], "/pools/encoder/modalities/0"),
        (["settings.NATS_URL=x"], "NATS_URL"),
        (["governor.rowBudgetW=-5"], "/governor/rowBudgetW"),
        (["workers.drainS=60"], "/workers/drainS"),
        (["autoscaling.mode=headrace"], "no pool has"),
        (
            ["autoscaling.mode=headrace", "pools.decode.autoscale.min=0", "pools.decode.autoscale.max=2"],
            "only encoders",
        ),
        (
            ["autoscaling.mode=headrace"]
            + [f"pools.{name}.autoscale.{key}=1" for name in ("encoder", "b") for key in ("min", "max")]
            + ["pools.b.stages[0]=encode", "pools.b.resources.requests.cpu=1", "pools.b.resources.requests.memory=1Gi"]
            + ["pools.b.resources.limits.memory=1Gi"],
            "one pool to the autoscaler",
        ),
        (["nats.replicas=2"], "nats.replicas"),
        (["nats.enabled=false"], "nats.url"),
        (["redis.mode=external"], "redis.url"),
        (["security.existingSecret="], "security.existingSecret"),
        (["nats.leaf.enabled=true", "security.enabled=false"], "nats.leaf.enabled"),
    ],
)
def test_wrong_values_are_refused_by_name(values: list[str], why: str) -> None:
    assert why in refused(*values)


def test_the_readme_tells_every_value() -> None:
    spec = importlib.util.spec_from_file_location("chart_readme", ROOT / "deploy/helm/readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (CHART / "README.md").read_text()
    assert module.written(readme, module.table((CHART / "values.yaml").read_text())) == readme


@pytest.mark.parametrize("name", ["small", "default", "gpus"])
def test_nats_takes_its_configuration(name: str, tmp_path: Path) -> None:
    """The server's own check, on the files at other places."""
    held = tmp_path / "run/headrace"
    held.parent.mkdir()
    credentials.prepare(held, behind=("west-1", ("tls://west-1:word@doors.example.org:7422",)))
    (text,) = [each["data"]["nats.conf"] for each in of_kind(name, "ConfigMap") if "nats.conf" in each["data"]]
    (tmp_path / "etc/nats").mkdir(parents=True)
    text = text.replace("/var/lib/nats", str(tmp_path / "jetstream")).replace(": /run/headrace", f": {held}")
    path = tmp_path / "etc/nats/nats.conf"
    path.write_text(text.replace("/tmp/nats.pid", str(tmp_path / "pid")))
    for each in held.glob("nats-leaf.conf"):
        each.write_text(each.read_text().replace('"/run/headrace', f'"{held}'))
    command = [str(find_nats().path), "--config", str(path), "-t"]
    env = {"POD_NAME": "headrace-nats-0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr
