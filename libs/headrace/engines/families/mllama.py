"""Mllama (Llama 3.2 Vision): some decoder layers attend across to a picture's rows and to nothing else."""

from pathlib import Path
from typing import Any

from headrace.core.errors import Unavailable
from headrace.engines.families import Family
from headrace.engines.families.decoder import Decoder, text_decoder
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf import Slot, open_hf
from headrace.engines.families.hf_config import language, model_spec, number
from headrace.engines.families.hf_pixels import load_preprocessor
from headrace.engines.families.llama_text import wrapped_name
from headrace.engines.families.mllama_tiles import GRAPH, MllamaPictures, Tiling, tower_inputs

IMAGE_TOKEN = "<|image|>"
EXTRA_EMBEDDINGS = 8  # rows of the embedding table behind the head's vocabulary; the picture's token is the first
# What the configuration and processor classes assume where files are silent.
_VISION: dict[str, Any] = {"image_size": 448, "patch_size": 14, "max_num_tiles": 4, "num_channels": 3}
_PROCESSOR: dict[str, Any] = {
    "max_image_tiles": 4,
    "resample": 2,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}


def family(directory: Directory) -> Family:
    pictures = pictures_of(directory)
    spec = model_spec(
        directory,
        family="mllama",
        modalities=("image",),
        placeholder_id=int(directory.config["image_token_index"]),
        self_layers=pictures.share[1],
        contract="cross",
    )
    slots = {"image": Slot(IMAGE_TOKEN, pictures.place)}
    return open_hf(directory, lambda _: spec, slots=slots, modalities={"image": pictures})


def decoder(directory: Directory) -> Decoder:
    fields = language(directory.config)
    return text_decoder(
        directory,
        fields,
        wrapped_name,
        vocab=number(directory, fields, "vocab_size") + EXTRA_EMBEDDINGS,
        cross_layers=tuple(fields["cross_attention_layers"]),
    )


def export(directory: Directory, out: Path) -> None:
    """See Architecture.export."""
    import torch
    from transformers import MllamaConfig
    from transformers.models.mllama.modeling_mllama import MllamaVisionModel

    from headrace.engines.families.exporting import load_part, write_graph
    from headrace.engines.families.mllama_tower import TileTower

    config = MllamaConfig.from_pretrained(directory.path)
    vision: Any = MllamaVisionModel(config.vision_config)
    projector = torch.nn.Linear(config.vision_config.vision_output_dim, config.text_config.hidden_size)
    load_part(directory, vision, ("model.vision_model.", "vision_model."))
    load_part(directory, projector, ("model.multi_modal_projector.", "multi_modal_projector."))
    tiling = pictures_of(directory).tiling
    tower = TileTower(vision, projector, tiling.rows, tiling.lanes)
    channels = int(config.vision_config.num_channels)
    inputs = {name: torch.from_numpy(array) for name, array in tower_inputs(tiling, 2).items()}
    example = {
        "pixels": torch.zeros(2, tiling.tiles_max, channels, tiling.side, tiling.side),
        "ratio": torch.ones(2, 1, dtype=torch.int64),
        **inputs,
    }
    axes = {
        "pixels": {0: "pictures"},
        "ratio": {0: "pictures"},
        "real": {0: "real"},
        "padding": {0: "padding"},
        "rows": {0: "pictures"},
    }
    write_graph(tower, example, axes, out / GRAPH)


def pictures_of(directory: Directory) -> MllamaPictures:
    """How its pictures are cut, counted and embedded.

    Raises:
        Unavailable: processor and tower do not agree, or the tower is of a kind that the reference computes otherwise.
    """
    said = directory.config.get("vision_config") or {}
    vision = {**_VISION, **{name: value for name, value in said.items() if value is not None}}
    preprocessor = load_preprocessor(directory, {"size": {"height": vision["image_size"]}, **_PROCESSOR})
    tiles = int(preprocessor.said["max_image_tiles"])
    tiling = Tiling(
        side=int(preprocessor.said["size"]["height"]),
        tiles_max=int(vision["max_num_tiles"]),
        rows=(int(vision["image_size"]) // int(vision["patch_size"])) ** 2 + 1,
    )
    if (tiling.side, tiles) != (vision["image_size"], tiling.tiles_max):
        raise Unavailable(f"{directory.path}: the image processor's tiles are not the vision tower's")
    if tiling.lanes == tiling.rows:
        raise Unavailable(f"{directory.path}: {tiling.rows} rows a tile, without padding, are not run")
    fields = language(directory.config)
    crossing = len(fields["cross_attention_layers"])
    share = (crossing, number(directory, fields, "num_hidden_layers") - crossing)
    return MllamaPictures(tiling, preprocessor, share, directory)
