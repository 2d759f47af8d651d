"""The mesh's own seconds: what is left of a timeline when the engines' time is taken out.

The names are those of headrace.sim.network.Mesh. Each comes with how it was found; what a mesh of this layout never
does (nothing is handed over where stages share a process) keeps the simulator's default.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from headrace.calibration.asking import Answer
from headrace.calibration.engine import Observed
from headrace.calibration.fits import Row, fit
from headrace.calibration.observe import Handed
from headrace.calibration.probes import Measured, Pictured
from headrace.client.types import Stage
from headrace.core.cost import StepCost
from headrace.sim.network import Mesh, left_behind

# Of moving a byte: from 100 GB/s to 100 MB/s, in steps of a twentieth.
_BYTE_S = 1e-11 * 1.05 ** np.arange(142)


@dataclass(frozen=True, slots=True)
class Seconds:
    """One of the mesh's seconds, and how far the middle half of what was seen spreads around it."""

    value: float
    spread: float = 0.0
    how: str = ""


def of_texts(lone: Sequence[Answer]) -> dict[str, Seconds]:
    """From lone text requests: to the dispatch, and from the worker to the client."""
    return {
        "admit_s": _middle([each.dispatched_s - each.asked_s for each in lone], "question to dispatch"),
        "deliver_s": _middle([each.token_s[0] - each.prefill.end_s for each in lone], "first token to the client"),
    }


def of_pictures(measured: Measured, admit_s: float, queue_s: float, event_s: float) -> dict[str, Seconds]:
    """From questions with pictures: what they take at the gateway, at the encoder around its work, and on their way."""
    admitting, told, fetched = list[Row](), list[float](), list[float]()
    for probe, rounds in measured.of(Pictured):
        assert isinstance(probe, Pictured)
        encoded = ("media", "preprocess", "encode")  # not found in a cache
        answers = [each for answers in rounds for each in answers if all(map(each.last, encoded))]
        if not answers:
            continue
        began = [min(span.start_s for span in each.all("preprocess")) - each.asked_s for each in answers]
        pixels = probe.count * probe.width * probe.height / 1e6
        beyond_s = max(1e-5, median(began) - admit_s - queue_s)
        admitting.append(Row(str(probe), beyond_s, {"part": float(probe.count), "megapixel": pixels}))
        for each in answers:
            told.append(_ready_s(each) - max(span.end_s for span in each.all("encode")))
            fetched += [(span.end_s - span.start_s - queue_s) / probe.count for span in _fetches(each)]
    if not admitting:
        return {}
    admitted = fit(admitting)
    error = f"worst {admitted.worst_error:.0%}"
    found = {
        "admit_part_s": Seconds(admitted.values["part"], 0.0, f"question to encoder, beyond a text's; {error}"),
        "admit_megapixel_s": Seconds(admitted.values["megapixel"], 0.0, f"the same, by pixels; {error}"),
        "part_s": _middle([each - event_s for each in told], "embedding written, registered, told of, less event_s"),
    }
    if fetched:
        found["embedding_s"] = _middle(fetched, "dispatch to embedding fetched, less queue_s")
    return found


def _ready_s(answer: Answer) -> float:
    media = answer.last("media")
    assert media is not None
    return media.end_s


def _fetches(answer: Answer) -> Iterable[Stage]:
    """Its embeddings on their way to prefill."""
    return (span for span in answer.all("transfer") if span.end_s <= answer.prefill.start_s + 1e-6)


def of_known_engine(observed: Sequence[Observed], step: StepCost) -> dict[str, Seconds]:
    """Beyond the known cost of iterations: the way to the engine, the loop around each, the export of KV caches."""
    loops = [each.seconds - _cost_s(each, step) for each in observed if not each.way]
    loop_s = max(0.0, median(loops)) if loops else 0.0
    rows = []
    for each in observed:
        beyond_s = each.seconds - _cost_s(each, step) - loop_s * len(each.works)
        if each.way:
            rows.append((beyond_s, each.exported_bytes))
    way_s, byte_s = _line(rows)
    return {
        "queue_s": Seconds(way_s, 0.0, "dispatch to first token, less the engine's time"),
        "iteration_s": Seconds(loop_s, _spread(loops) if loops else 0.0, "an iteration, less the engine's time"),
        "export_byte_s": Seconds(byte_s, 0.0, "first tokens of long prompts that are handed over"),
    }


def _cost_s(observed: Observed, step: StepCost) -> float:
    return sum(step.step_s(work) for work in observed.works)


def _line(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A constant and a slope, neither negative, through (seconds, bytes)."""
    if not rows:
        return 0.0, 0.0
    shift = 1e-3  # seconds may be about none, or a little less: the same distance from it for all
    lifted = [Row("", max(seconds + shift, 1e-6), {"way": 1.0, "bytes": size}) for seconds, size in rows]
    found = fit(lifted).values
    return max(0.0, found["way"] - shift), found["bytes"]


def of_handovers(
    handed: Sequence[Handed], kv_bytes_per_token: int, mesh: Mesh
) -> tuple[dict[str, Seconds], list[float]]:
    """handover_s and byte_s, and the relative error of each hand-over.

    Not linear, since a long prefill hides its transfer: each byte_s of a fine grid is tried, with the constant that
    suits it best.
    """
    if not handed:
        return {}, []
    command_s = mesh.command_s
    best: tuple[float, float, float, list[float]] | None = None
    for byte_s in (0.0, *_BYTE_S.tolist()) if kv_bytes_per_token else (0.0,):
        moved = [
            byte_s * left_behind(byte_s, each.tokens * kv_bytes_per_token, each.prefill_s, mesh.pipeline_bytes)
            for each in handed
        ]
        constant_s = max(0.0, median(each.seconds - command_s - take for each, take in zip(handed, moved, strict=True)))
        errors = [
            (command_s + constant_s + take) / each.seconds - 1.0 for each, take in zip(handed, moved, strict=True)
        ]
        missed = sum(abs(error) for error in errors)
        if best is None or missed < best[0]:
            best = (missed, byte_s, constant_s, errors)
    assert best is not None
    _, byte_s, constant_s, errors = best
    return {
        "handover_s": Seconds(constant_s, 0.0, "first token to the decoding engine, less its bytes"),
        "byte_s": Seconds(byte_s, 0.0, "hand-overs of long prompts"),
    }, errors


def _middle(values: Sequence[float], how: str) -> Seconds:
    return Seconds(max(0.0, median(values)), _spread(values), how)


def _spread(values: Sequence[float]) -> float:
    low, high = np.quantile(np.asarray(values), [0.25, 0.75])
    return float(high - low)


def plain(seconds: Mapping[str, Seconds]) -> dict[str, float]:
    return {name: each.value for name, each in seconds.items()}
