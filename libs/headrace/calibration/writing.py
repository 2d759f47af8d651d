"""A calibration as the files that the simulator reads: a profile of the engines, a scenario with the fleet.

The profile is an LLM's (headrace.profiles.instance), with the encoder's in its table [encoder] and the mesh's seconds
in its table [mesh]. The scenario has the same seconds, one pool for each kind of worker, and a small workload.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headrace.calibration.calibrate import Calibration
from headrace.calibration.encoder import EncoderFit
from headrace.calibration.shape import Limits, Shape
from headrace.report.provenance import Provenance

NO_POWER = ("idle_w", "context_w", "prefill_w", "decode_w", "encode_w")


@dataclass(frozen=True, slots=True)
class Origin:
    """What stands behind the figures: on what, when, by which command."""

    device: str  # one word for the file's `gpu`: a card of headrace.profiles, or any name of a device without one
    has_card: bool
    provenance: Provenance

    @property
    def words(self) -> str:
        told = self.provenance
        return f"`{told.command}`, {told.date}, {told.machine}"


def profile_toml(found: Calibration, origin: Origin, known: str = "") -> str:
    """known: the profile whose costs the engine was known to have."""
    lines = [
        f"# {found.shape.model} on this mesh, measured; `headrace simulate` takes this file as a pool's profile.",
        f"title = {_text(found.shape.model)}",
        'kind = "llm"',
        f"gpu = {_text(origin.device)}",
        *_llm(found, origin, known),
        *_mesh_table(found),
    ]
    if found.encoder is not None:
        lines += _encoder(found.encoder, found.shape.limits, origin)
    return "\n".join(lines) + "\n"


def _time_source(found: Calibration, origin: Origin, known: str) -> str:
    if found.engine is None:
        return f"[I] those of the profile {known or 'that was given'}; the mesh's own seconds [M] {origin.words}"
    fitted = found.engine
    quality = (
        f"median {fitted.median_error:.1%}, worst {fitted.worst_error:.1%}, held out {_share(fitted.held_out.error)}"
    )
    return f"[M] {origin.words}; relative errors: {quality}"


def _llm(found: Calibration, origin: Origin, known: str) -> list[str]:
    shape, step, limits = found.shape, found.step, found.shape.limits
    return [
        "",
        "[sources]",
        f"time = {_text(_time_source(found, origin, known))}",
        f"attention = {_text('[M] as time')}",
        f"memory = {_text('[M] KV blocks as the workers report them')}",
        f"load = {_text('[?] not measured')}",
        *_power(origin, ""),
        "",
        "[model]",
        'source = "[V] as the mesh says"',
        f"context_tokens = {limits.context_tokens}",
        f"kv_bytes_per_token = {limits.kv_bytes_per_token}",
        "weights_bytes = 1 # not measured, and not used",
        "",
        "[tp1]",
        "gpus = 1",
        f"tokens = {_numbers(step.tokens_s.xs)}",
        f"tokens_s = {_numbers(step.tokens_s.ys)}",
        f"prefill_pair_s = {step.prefill_pair_s:.4e}",
        f"decode_sequence_s = {step.decode_sequence_s:.4e}",
        f"decode_context_token_s = {step.decode_context_token_s:.4e}",
        f"kv_room_bytes = {shape.blocks * max(1, limits.block_tokens * limits.kv_bytes_per_token)}",
        f"chunk_tokens = {limits.chunk_tokens}",
        f"block_tokens = {limits.block_tokens}",
        "load_cold_s = 0.0 # not measured",
        "load_warm_s = 0.0",
    ]


def _encoder(fitted: EncoderFit, limits: Limits, origin: Origin) -> list[str]:
    cost = fitted.cost
    quality = (
        f"median {fitted.median_error:.1%}, worst {fitted.worst_error:.1%}, held out {_share(fitted.held_out.error)}"
    )
    return [
        "",
        "[encoder]",
        'kind = "encoder"',
        f"gpu = {_text(origin.device)}",
        "",
        "[encoder.sources]",
        f"time = {_text(f'[M] {origin.words}')}",
        f"load = {_text('[?] not measured')}",
        *_power(origin, "encoder."),
        "",
        "[encoder.model]",
        f"source = {_text(f'[M] a tile is what the smallest picture takes: {fitted.tile_tokens} tokens')}",
        "weights_bytes = 1 # not measured, and not used",
        f"embed_bytes_per_token = {max(1, limits.embed_bytes_per_token)}",
        f"part_tokens = {fitted.fixed_tokens}",
        "",
        "[encoder.preprocess]",
        f"source = {_text(f'[M] the same measurement; relative errors: {quality}')}",
        f"part_s = {cost.preprocess_part_s:.4e}",
        f"megapixel_s = {cost.preprocess_megapixel_s:.4e}",
        "",
        "[encoder.tp1]",
        "gpus = 1",
        f"tiles = {_numbers(cost.tiles_s.xs)}",
        f"tiles_s = {_numbers(cost.tiles_s.ys)}",
        "load_cold_s = 0.0 # not measured",
        "load_warm_s = 0.0",
    ]


def _power(origin: Origin, under: str) -> list[str]:
    """Watts are not measured here: those of the card, or none."""
    if origin.has_card:
        return []
    zeros = [f"{name} = 0.0" for name in NO_POWER]
    return ["", f"[{under}power]", 'source = "[?] not measured"', *zeros]


def _mesh_table(found: Calibration) -> list[str]:
    return [
        "",
        "[mesh] # seconds of headrace.sim.network.Mesh; what is not here keeps the simulator's default",
        *(f"{name} = {each.value:.4e}{f' # {each.how}' if each.how else ''}" for name, each in found.mesh.items()),
    ]


def scenario_toml(found: Calibration, profile: str) -> str:
    """A scenario with this mesh's fleet; `profile` is the file of profile_toml, or the name of a known profile."""
    shape = found.shape
    images = 0.2 if found.encoder is not None and found.encoder.fixed_tokens else 0.0
    prompt = min(1200, shape.prompt_tokens_max)
    lines = [
        "# The calibrated mesh as a fleet: change the workload, the counts, the policy, and see before you do it.",
        f"about = {_text(f'{shape.model} as it was calibrated')}",
        f"model = {_text(shape.model)}",
        "duration_s = 60",
        "drain_s = 60",
        "",
        "[workload]",
        'kind = "generated"',
        'generator = "multimodal"',
        f"rate_rps = {_rate_rps(found):.2g} # a third of what prefill can take",
        f"image_share = {images}",
        'profile = "flat"',
        "bursty = false",
        "",
        "[workload.clip]",
        f"input_tokens = {prompt}",
        "output_tokens = 100",
        "",
        "[classes.interactive]",
        "share = 1",
        *_mesh_table(found),
        *fleet_lines(shape, profile),
    ]
    return "\n".join(lines) + "\n"


def fleet_lines(shape: Shape, profile: str) -> list[str]:
    lines = ["", "[fleet]", 'link = "pcie" # its pools name no card: what moving bytes takes is in [mesh] byte_s']
    for pool in shape.pools:
        room = [f"slots = {pool.slots}"]
        if pool.stages == ("encode",):  # live it takes a quarter of what waits, as where no batch is said
            room = ["batch_max = 1"] if pool.slots == 1 else []
        lines += [
            "",
            "[[fleet.pools]]",
            f"name = {_text(pool.name)}",
            f"stages = [{', '.join(_text(stage) for stage in pool.stages)}]",
            f"count = {pool.count}",
            *room,
            f"profile = {_text(profile)}",
        ]
    return lines


def _rate_rps(found: Calibration) -> float:
    """Of prompts of the mean length measured."""
    alone = [each.seconds for each in found.observed if each.way]
    return 1 / (3 * max(1e-3, sum(alone) / len(alone)))


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', "'") + '"'


def _numbers(values: Iterable[float]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _share(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.1%}"


def write(found: Calibration, origin: Origin, out: Path, known: str = "") -> tuple[Path, Path]:
    """The profile, and beside it NAME-scenario.toml. Returns both."""
    scenario = out.with_name(f"{out.stem}-scenario.toml")
    out.write_text(profile_toml(found, origin, known), encoding="utf-8")
    scenario.write_text(scenario_toml(found, f"{out.resolve()}/tp1"), encoding="utf-8")
    return out, scenario
