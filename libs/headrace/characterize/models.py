"""Models by their profiles as a Document: the sections (a) to (e) and where their figures come from."""

from collections.abc import Callable, Sequence

from headrace.characterize import batching, breakdown, contracts, interference, parallelism
from headrace.characterize.cost import Shown
from headrace.characterize.document import Document
from headrace.characterize.interference import Cell, Mix, plan
from headrace.characterize.parts import Parts
from headrace.report.assumptions import Assumption
from headrace.sim.sweep import Outcome

__all__ = ["document", "plan"]


def document(
    models: Sequence[Parts],
    shown: Shown,
    mixes: Sequence[Mix],
    *,
    seen: Callable[[Outcome[Mix, Cell]], None] | None = None,
    going: Callable[[float], None] | None = None,
) -> Document:
    """mixes: the runs of the interference section, of plan(); none: it is left out."""
    found = interference.carry_out(mixes, seen, going) if mixes else []
    sections = [each.section(models, shown) for each in (breakdown, batching, parallelism, contracts)]
    if found:
        sections.append(interference.section(found, shown, mixes[0].seed))
    names = ", ".join(parts.name for parts in models)
    assumed: dict[str, Assumption] = {each.name: each for parts in models for each in parts.assumptions()}
    data = {
        parts.name: {
            "gpu": parts.gpu,
            "stages": breakdown.data(parts, shown),
            "batching": batching.data(parts, shown),
            "parallelism": parallelism.data(parts, shown),
            "contracts": contracts.data(parts, shown),
        }
        for parts in models
    }
    for each in found:
        data[each.parts.name]["interference"] = interference.data(each)
    return Document(
        f"Stages of {names}" if len(models) < 3 else f"Stages of {len(models)} models",
        f"On {models[0].gpu.upper()}s, from cost profiles: computed from them or simulated on them, nothing measured"
        f" here. The request: {shown.words}.",
        tuple(sections),
        tuple(assumed.values()),
        {"origin": {"interference": "simulated", "all else": "computed"}, "models": data},
    )
