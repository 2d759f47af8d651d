"""A small scenario on a real mesh of this machine, beside what the simulator says of the very same arrivals.

Processes, bus, journal and books are real; the engine sleeps for a GPU's time (profile H100, Qwen3-8B). A mesh is
calibrated first, so that the simulated one has its seconds. Targets are shortened: a scenario takes half a minute.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.calibration import Plan
from headrace.calibration.calibrate import derive
from headrace.calibration.probes import Measured
from headrace.characterize.document import Section, Table, milliseconds, percent
from headrace.cli.calibrate import find_shape
from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client.aio import AsyncClient
from headrace.modalities.image import ROWS
from headrace.profiles import engine_profile
from headrace.sim.result import Result, percentile
from headrace.sim.run import simulate
from headrace.workload.scenario import Scenario, parse
from loadtest.benches import validation
from loadtest.benches.report import say
from loadtest.benches.validation import Round
from loadtest.benches.validation_compare import as_asked
from loadtest.benches.validation_subjects import Subject

SEED = 11
SECONDS = 40.0  # of arrivals
OTHERS_MOST = 0.1  # of the cores, taken by others, from which on that is told
SHORTER = 20.0  # targets are so many times shorter than the classes' own
_PLAN = Plan(1, (40, 160, 640), (2,), ((64, 64, 1), (400, 300, 1), (800, 600, 1)))


@dataclass(frozen=True, slots=True)
class System:
    """What a mesh is told, and what the simulator is told in its place."""

    name: str
    environment: Mapping[str, str]  # of all services
    policy: str
    colocate: tuple[str, ...] = ("prefill", "decode")
    workers: int = 1  # that prefill and decode
    encoders: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the simulated queue manager


@dataclass(frozen=True, slots=True)
class Small:
    """What is asked: so that the engines are about full."""

    rate_rps: float
    slots: int  # of a worker
    image_share: float = 0.0
    input_tokens: int = 800  # longer ones are cut
    output_tokens: int = 300
    picture_s: float = 0.0  # of encoding each; 0: as the packaged profile has it
    classes: Mapping[str, float] = field(default_factory=lambda: {"interactive": 1.0})  # shares

    def scenario(self) -> Scenario:
        workload = {
            "kind": "generated",
            "generator": "multimodal",
            "rate_rps": self.rate_rps,
            "image_share": self.image_share,
            "profile": "flat",
            "bursty": False,
            "clip": {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "parts": 2},
        }
        raw = {"about": "echo", "duration_s": SECONDS, "drain_s": 120.0, "model": "profile-tiny", "seed": SEED}
        targets = {"interactive": 20.0, "batch-1": 60.0, "batch-2": 3_600.0}
        classes = {name: {"share": share, "ttft_s": targets[name] / SHORTER} for name, share in self.classes.items()}
        return parse(raw | {"workload": workload, "classes": classes}, Path("echo.toml"))


@dataclass(frozen=True, slots=True)
class Heard:
    """One system: the figures of the mesh, and of the simulation of the same arrivals."""

    system: str
    requests: int
    live: Mapping[str, float]
    simulated: Mapping[str, float]
    idle_share: float  # of this machine's cores
    others_share: float

    def data(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "requests": self.requests,
            "live": dict(self.live),
            "simulated": dict(self.simulated),
            "idle_share": self.idle_share,
            "others_share": self.others_share,
        }


def hear(systems: Sequence[System], small: Small) -> tuple[Heard, ...]:
    """One mesh after the other."""
    return tuple([asyncio.run(_hear(system, small)) for system in systems])


async def _hear(system: System, small: Small) -> Heard:
    say(f"  live: {system.name} ...")
    subject = _subject(system, small)
    with tempfile.TemporaryDirectory(prefix="headrace-echo-") as name:
        folder, scenario = Path(name), small.scenario()
        config = _mesh_config(system, subject, small, folder)
        async with Mesh(config) as mesh, AsyncClient(mesh.grpc_addr) as client:
            limits = validation.limits_of(subject, config.profile)
            shape = await find_shape(client, mesh.addresses.grpc["qm-0"], limits)
            measured = Measured()
            await validation.calibrate_once(client, subject, shape, measured, 0)
            done = await validation.replay_once(mesh, scenario)
        found = derive(measured, shape, engine_profile(config.profile).cost)
        (twin,) = validation.with_fleet(found, folder, [done])
        return _heard(system, scenario, done, twin)


def _heard(system: System, scenario: Scenario, done: Round, twin: Scenario) -> Heard:
    asked = as_asked(list(scenario.arrivals()), done.replayed.rows)
    simulated = simulate(twin, system.policy, SEED, arrivals=asked, settings=system.settings)
    live = done.replayed.result
    return Heard(
        system.name, len(live.requests), _figures(live), _figures(simulated), done.idle_share, done.others_share
    )


def _figures(result: Result) -> dict[str, float]:
    requests = result.requests
    text = requests.media_parts == 0
    found = {
        "attainment": float(result.met().mean()),
        "ttft_p50_s": percentile(requests.ttft_s, 0.5),
        "ttft_p99_s": percentile(requests.ttft_s, 0.99),
        "jct_mean_s": float(requests.jct_s[requests.finished].mean()) if requests.finished.any() else float("nan"),
    }
    return found if text.all() else found | {"text_ttft_p99_s": percentile(requests.ttft_s[text], 0.99)}


def _subject(system: System, small: Small) -> Subject:
    """As the bench of the simulator's truth has it."""
    sizes = (small.rate_rps, small.input_tokens, small.output_tokens, small.image_share)
    return Subject("echo", "profile", "profile-tiny", True, *sizes, _PLAN, system.colocate)


def _mesh_config(system: System, subject: Subject, small: Small, folder: Path) -> MeshConfig:
    plain = subject.mesh_config(folder)
    path = folder / "classes.toml"
    # The simulator has no doors that turn away: here they let in whoever comes.
    lines = [
        f"[classes.{slo.name}]\nttft_s = {slo.ttft_s!r}\nrefuse_s = {slo.timeout_s!r}\n"
        for slo in small.scenario().classes
    ]
    path.write_text("".join(lines), encoding="utf-8")
    told = {"HEADRACE_SLOTS": str(small.slots), "HEADRACE_CLASSES_FILE": str(path), "HEADRACE_PREDICT": "off"}
    return replace(
        plain,
        profile=str(_with_encoder(Path(plain.profile), small.picture_s)) if small.picture_s else plain.profile,
        prefill=system.workers,
        decode=system.workers,
        encoders=system.encoders if "encode" not in system.colocate else system.workers,
        environment={**plain.environment, **told, **system.environment},
    )


def _with_encoder(profile: Path, picture_s: float) -> Path:
    """The profile with an encoder whose pictures take so long each."""
    path = profile.with_stem(f"{profile.stem}-encoder")
    text = profile.read_text(encoding="utf-8")
    path.write_text(f"{text}\n[encode]\ntoken_s = {picture_s / ROWS!r}\n", encoding="utf-8")
    return path


# --- the report ---


_SECONDS = {
    "ttft_p50_s": "TTFT p50, ms",
    "ttft_p99_s": "TTFT p99, ms",
    "text_ttft_p99_s": "of text alone",
    "jct_mean_s": "JCT mean, ms",
}


def section(name: str, heard: Sequence[Heard]) -> Section:
    return Section(
        "live",
        "Live, at this machine's scale",
        "measured",
        findings=tuple(_finding(each) for each in heard),
        notes=(
            f"One scenario of {SECONDS:g} s for {name}: real processes, bus and journal; workers sleep for the time of"
            f" an H100 with Qwen3-8B; targets {SHORTER:g} times shorter; one seed. The simulated mesh has the seconds"
            " that a calibration of the live one found. Lengths are known to neither but for what a request allows;"
            " the mesh's doors let in whoever comes, as the simulated ones do.",
            *_busy(heard),
        ),
        tables=(_table(heard),),
    )


def _busy(heard: Sequence[Heard]) -> tuple[str, ...]:
    most = max(each.others_share for each in heard)
    if most < OTHERS_MOST:
        return ()
    return (
        f"**Other programs took up to {percent(most)} of the cores meanwhile.** Processes wait for a core then, of"
        " which no simulation knows: these figures say little.",
    )


def _finding(each: Heard) -> str:
    off = each.simulated["jct_mean_s"] / each.live["jct_mean_s"] - 1 if each.live["jct_mean_s"] else float("nan")
    points = 100 * (each.simulated["attainment"] - each.live["attainment"])
    return f"{each.system}: simulated, {points:+.1f} points of promises kept, and {100 * off:+.1f} % of the mean JCT."


def _table(heard: Sequence[Heard]) -> Table:
    names = [name for name in _SECONDS if name in heard[0].live]
    titles = [title for name in names for title in (_SECONDS[name], "simulated")]
    columns = ("system", "requests", "promises kept", "simulated", *titles, "cores idle")
    return Table(
        "The mesh, and the simulation of the same arrivals", columns, tuple(_row(each, names) for each in heard)
    )


def _row(each: Heard, names: Sequence[str]) -> tuple[str, ...]:
    pairs = [percent(side["attainment"], 1) for side in (each.live, each.simulated)]
    for name in names:
        pairs += [milliseconds(side[name]) for side in (each.live, each.simulated)]
    return (each.system, f"{each.requests:,}", *pairs, percent(each.idle_share))


# --- the scenarios ---

_MIXED = {"interactive": 4.0, "batch-1": 3.5, "batch-2": 2.5}
_FCFS = {"HEADRACE_ORDER": "fcfs"}


def modserve() -> tuple[Heard, ...]:
    """Two GPUs: stages together in both workers, or one for pictures and one for text; then in order of slack."""
    whole = ("encode", "prefill", "decode")
    systems = (
        System("monolith", _FCFS, "fcfs", whole, workers=2),
        System("decoupled", _FCFS, "fcfs"),
        System("ModServe", {"HEADRACE_ORDER": "least-slack"}, "least-slack"),
    )
    small = Small(rate_rps=7.0, slots=64, image_share=0.3, output_tokens=100, picture_s=0.27, classes=_MIXED)
    return hear(systems, small)


def ssjf() -> tuple[Heard, ...]:
    """One worker that decodes two sequences at once, and a line before it."""
    systems = (System("FCFS", _FCFS, "fcfs"), System("SSJF", {"HEADRACE_ORDER": "ssjf"}, "ssjf"))
    return hear(systems, Small(rate_rps=2.2, slots=2))


def qlm() -> tuple[Heard, ...]:
    """Two workers with three places each; more is asked than they can do."""
    systems = (
        System("FCFS", _FCFS, "fcfs", workers=2),
        System("EDF", {"HEADRACE_ORDER": "edf"}, "edf", workers=2),
        System("Headrace", {"HEADRACE_PLANNER": "headrace"}, "headrace", workers=2, settings={"plan_nodes": 0}),
    )
    return hear(systems, Small(rate_rps=8.0, slots=3, classes=_MIXED))


def together() -> tuple[Heard, ...]:
    """All stages in one process, first come first served; and stages apart under the planner."""
    systems = (
        System("all stages in one process, FCFS", _FCFS, "fcfs", ("encode", "prefill", "decode")),
        System("stages apart, Headrace", {"HEADRACE_PLANNER": "headrace"}, "headrace", settings={"plan_nodes": 0}),
    )
    return hear(systems, Small(rate_rps=3.5, slots=3, image_share=0.3, classes=_MIXED))
