"""What an encoder on some GPUs costs: a table of a profile, scaled where a multimodal model was calibrated."""

from dataclasses import dataclass
from pathlib import Path

from headrace.core.cost import Curve, EncodeCost, Power
from headrace.profiles.gpu import power_of
from headrace.profiles.model import part_of
from headrace.profiles.reading import ProfileError, Table, parallel, read, split_name


@dataclass(frozen=True, slots=True)
class EncoderProfile:
    name: str
    source: str
    gpu: str
    gpus: int
    cost: EncodeCost
    power: Power  # of each of its GPUs
    weights_bytes: int
    embed_bytes_per_token: int  # of what goes to the LLM: the encoder's raw output, the connector stands there
    load_cold_s: float
    load_warm_s: float
    part_tokens: int = 0  # of every picture, whatever its size; 0: the model's card counts


def holds_encoder(name: str) -> bool:
    """Whether "mine.toml", or "mine.toml/tp1", has an encoder. Raises ProfileError: no such file."""
    if ".toml" not in name:
        return False
    path = f"{name.rpartition('.toml')[0]}.toml"
    top = read(Path(path), path)
    return "encoder" in top or top.values.get("kind") == "encoder"


def encoder(name: str) -> EncoderProfile:
    """The profile "a100/vit-h14/tp1" of a tower, or "a100/llama-3.2-90b-vision/tp1": that tower as the model runs it.

    The paper's shares of encoding in the time to first token contradict one another for a tower that two models share,
    so each model whose share is known was calibrated by itself; the source of what is returned says on what.

    Or path/to/mine.toml/tp1: an encoder's own file, or the table [encoder] of an LLM's.

    Raises:
        ProfileError: no such profile, or its content is wrong.
    """
    by_tower, lmm = part_of(name, "encoder")
    top, stem, at = split_name(by_tower, "encoder")
    if "encoder" in top:  # beside an LLM, in the file of a calibrated mesh
        top = top.table("encoder")
    table = parallel(top, at)
    top.choice("kind", ("encoder",))
    gpu, power, power_source = power_of(top)
    sources, tower, preprocess = top.table("sources"), top.table("model"), top.table("preprocess")
    scale, scale_source = _calibration(top, lmm)
    profile = EncoderProfile(
        name=f"{gpu}/{lmm or stem}/{at}",
        source="; ".join(
            [
                f"time: {sources.source('time')}",
                f"calibration: {scale_source}",
                f"load: {sources.source('load')}",
                f"preprocessing: {preprocess.source()}",
                f"power: {power_source}",
            ]
        ),
        gpu=gpu,
        gpus=table.whole("gpus", least=1),
        cost=EncodeCost(
            tiles_s=_scaled(table.curve("tiles", "tiles_s"), scale),
            preprocess_part_s=preprocess.number("part_s"),
            preprocess_megapixel_s=preprocess.number("megapixel_s"),
        ),
        power=power,
        weights_bytes=tower.whole("weights_bytes", least=1),
        embed_bytes_per_token=tower.whole("embed_bytes_per_token", least=1),
        load_cold_s=table.number("load_cold_s"),
        load_warm_s=table.number("load_warm_s"),
        part_tokens=tower.whole("part_tokens", 0),
    )
    tower.source()
    tower.pass_over("parameters", "layers", "hidden", "heads", "intermediate", "tile_patches")
    top.pass_over("title")
    for part in (top, table, sources, tower, preprocess):
        part.end()
    return profile


def _scaled(curve: Curve, scale: float) -> Curve:
    return Curve(curve.xs, tuple(y * scale for y in curve.ys))


def _calibration(top: Table, lmm: str) -> tuple[float, str]:
    """The factor on the tower's seconds, and where it is from."""
    if not lmm:
        top.pass_over("calibration")
        return 1.0, "[I] none: the tower as such"
    if "calibration" not in top or lmm not in top.table("calibration"):
        raise ProfileError(f"profile {top.file}: no table [calibration.{lmm!r}]: {lmm} has another encoder")
    table = top.table("calibration").table(lmm)
    found = table.number("scale"), table.source()
    table.end()
    return found
