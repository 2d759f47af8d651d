"""A mesh that runs, measured: probes, observations, fits, seconds, put together as one Calibration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from headrace.calibration import observe, overheads
from headrace.calibration.asking import Asker
from headrace.calibration.encoder import EncoderFit, fit_encoder
from headrace.calibration.engine import EngineFit, Observed, fit_engine
from headrace.calibration.errors import CalibrationError
from headrace.calibration.overheads import Seconds, plain
from headrace.calibration.probes import Measured, Pictured, Plan, measure
from headrace.calibration.shape import Shape
from headrace.client.aio import AsyncClient
from headrace.core.cost import StepCost
from headrace.sim.network import Mesh

# What cannot be told apart from outside keeps its value here, and what stands beside it takes the rest.
_DEFAULT = Mesh()


@dataclass(frozen=True, slots=True)
class Calibration:
    shape: Shape
    step: StepCost  # fitted, or known
    engine: EngineFit | None  # None: its cost was known
    encoder: EncoderFit | None  # None: the mesh takes no pictures
    mesh: Mapping[str, Seconds]  # by the names of headrace.sim.network.Mesh; what is not here keeps its default
    observed: tuple[Observed, ...]
    handed: tuple[observe.Handed, ...] = ()
    handed_errors: tuple[float, ...] = ()  # relative, of each of those

    def check(self) -> None:
        """Raises PoorFit: what was held out of a fit was missed by too much to build on it."""
        if self.engine is not None:
            self.engine.held_out.check("iterations")
        if self.encoder is not None:
            self.encoder.held_out.check("reading pictures")

    @property
    def mesh_seconds(self) -> dict[str, float]:
        return plain(self.mesh)


async def calibrate(
    client: AsyncClient,
    shape: Shape,
    plan: Plan,
    *,
    known: StepCost | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Measure a mesh that does nothing else.

    known: what the engine's iterations cost, where that is known (the profile engine's): then only the mesh's own
    seconds are fitted.

    Raises:
        CalibrationError: a question was not answered, or answers tell too little.
        PoorFit: what was measured does not foresee what was held out.
    """
    asker = Asker(client, Random(plan.seed))
    measured = await measure(asker, shape, plan, say)
    found = derive(measured, shape, known)
    found.check()
    return found


def derive(measured: Measured, shape: Shape, known: StepCost | None = None) -> Calibration:
    """What the answers tell, however well: see Calibration.check."""
    limits = shape.limits
    observed = (
        *(_exporting(each, shape) for each in observe.prefills(measured, limits.chunk_tokens)),
        *observe.rows_of_prefills(measured, limits.chunk_tokens),
        *observe.decodes(measured),
    )
    if not any(each.name.startswith("decode") for each in observed):
        raise CalibrationError("no batch decoded steadily: answers came in too few messages")
    seconds = overheads.of_texts(measured.lone)
    # A command's way to its worker is one message; a token's way to its client is one, and the gateway's answer.
    engine = None if known is not None else fit_engine(observed, seconds["deliver_s"].value)
    if known is not None:
        seconds |= overheads.of_known_engine(observed, known)
    elif engine is not None:
        seconds["queue_s"] = Seconds(engine.way_s, 0.0, "a lone prompt, less its iterations")
        seconds["export_byte_s"] = Seconds(engine.export_byte_s, 0.0, "lone prompts against those in a row")
    handed = observe.handovers(measured)
    moved, errors = overheads.of_handovers(
        _free_of_export(observe.handovers(measured), shape, seconds), limits.kv_bytes_per_token, _DEFAULT
    )
    seconds |= moved
    pictures = observe.pictures(measured)
    if not pictures and any(measured.of(Pictured)):
        raise CalibrationError("no picture's encoding was timed: are all in the encoders' caches? Take another seed")
    encoder = fit_encoder(pictures) if pictures else None
    seconds |= overheads.of_pictures(measured, seconds["admit_s"].value, seconds["queue_s"].value, _DEFAULT.event_s)
    step = engine.step if engine is not None else known
    assert step is not None
    return Calibration(shape, step, engine, encoder, seconds, observed, tuple(handed), tuple(errors))


def _free_of_export(handed: list[observe.Handed], shape: Shape, seconds: Mapping[str, Seconds]) -> list[observe.Handed]:
    """In the iterations alone a KV cache travels: not before they begin, nor while it is written."""
    before_s = [seconds["export_byte_s"].value * each.tokens * shape.limits.kv_bytes_per_token for each in handed]
    way_s = seconds["queue_s"].value
    return [
        replace(each, prefill_s=max(0.0, each.prefill_s - way_s - wrote_s))
        for each, wrote_s in zip(handed, before_s, strict=True)
    ]


def _exporting(observed: Observed, shape: Shape) -> Observed:
    """A lone prompt, with its KV cache where that leaves the engine before its first token is told."""
    size = sum(work.prefill_tokens for work in observed.works) * shape.limits.kv_bytes_per_token
    exported = shape.hands_over and size >= _DEFAULT.pipeline_bytes
    return replace(observed, exported_bytes=float(size)) if exported else observed
