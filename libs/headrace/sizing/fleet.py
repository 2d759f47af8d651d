"""A layout as a scenario's fleet: for the simulator, as TOML, and as the words that start it on one machine."""

from dataclasses import replace

from headrace.characterize.parts import Parts
from headrace.sizing.choose import SERVER_GPUS, Layout, Sized
from headrace.workload.fleet import Fleet, LinkName, PoolSpec

NAMES = {
    "encode": "encode",
    "prefill": "prefill",
    "decode": "decode",
    "prefill+decode": "llm",
    "encode+prefill+decode": "whole",
}
PREFILL_SLOTS = 256  # prompts that wait at a prefill worker and are not yet handed over
# Tables of a scenario that name pools, or workers of them.
FLEET_TABLES = ("fleet", "autoscale", "incidents")


def fleet_of(layout: Layout, parts: Parts, link: LinkName) -> Fleet:
    return Fleet(tuple(_pool(pool, parts) for pool in layout.pools), link)


def _pool(pool: Sized, parts: Parts) -> PoolSpec:
    chosen = pool.chosen
    stages = chosen.stage.split("+")
    own = parts.tower_file if chosen.stage == "encode" else parts.llm_file
    spec = PoolSpec(
        name=NAMES[chosen.stage],
        stages=tuple(stages),  # type: ignore[arg-type]
        gpu=parts.gpu,
        tp=chosen.tp,
        count=pool.count,
        profile=f"{own}/tp{chosen.tp}" if own else "",
    )
    if chosen.stage == "encode":
        return replace(spec, batch_max=chosen.batch)
    return replace(spec, slots=chosen.batch or PREFILL_SLOTS)


def with_fleet(text: str, fleet: Fleet, about: str) -> str:
    """A scenario's text, its comments included, with another fleet; what names the pools it had is left out."""
    kept, keeps = [], True
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            keeps = stripped.lstrip("[ ").partition("]")[0].partition(".")[0].strip() not in FLEET_TABLES
        if keeps:
            kept.append(line)
    return "\n".join([*kept, "", *_lines(fleet, about)]).strip() + "\n"


def _lines(fleet: Fleet, about: str) -> list[str]:
    lines = [*(f"# {line}" for line in about.splitlines()), "[fleet]", f'link = "{fleet.link}"']
    for pool in fleet.pools:
        stages = ", ".join(f'"{stage}"' for stage in pool.stages)
        lines += ["", "[[fleet.pools]]", f'name = "{pool.name}"', f"stages = [{stages}]", f'gpu = "{pool.gpu}"']
        lines += [f"tp = {pool.tp}", f"count = {pool.count}"]
        lines += [f"slots = {pool.slots}"] * bool(pool.slots) + [f"batch_max = {pool.batch_max}"] * bool(pool.batch_max)
        lines += [f'profile = "{pool.profile}"'] * bool(pool.profile)
    return lines


def up_words(layout: Layout, model: str) -> str:
    """`headrace up` for the same processes, where one machine has the GPUs; empty where it has not, or no flags say it.

    Every worker of `headrace up` runs on one device: parallelism within a worker is the engine's own matter.
    """
    if layout.gpus > SERVER_GPUS or any(pool.chosen.tp > 1 for pool in layout.pools):
        return ""
    counts = {NAMES[pool.chosen.stage]: pool.count for pool in layout.pools}
    words = ["headrace", "up", "--model", model]
    shared = counts.get("llm") or counts.get("whole")
    if "encode" in counts:
        words += ["--encoders", str(counts["encode"])]
    if shared:
        words += ["--prefill", str(shared), "--decode", str(shared)]
        words += (
            ["--encoders", str(shared), "--colocate", "all"] if "whole" in counts else ["--colocate", "prefill,decode"]
        )
    else:
        words += ["--prefill", str(counts["prefill"]), "--decode", str(counts["decode"])]
    return " ".join(words)
