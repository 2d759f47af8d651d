"""Qwen2.5-VL: a vision tower with attention windows, pictures of any size, three-axis rope, Qwen2's language model."""

from pathlib import Path
from typing import Any

from headrace.engines.families import Family
from headrace.engines.families.decoder import Decoder, text_decoder
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_config import language
from headrace.engines.families.qwen_vl import positions
from headrace.engines.families.qwen_vl_encoder import (
    GRAPH,
    QwenPictures,
    open_qwen,
    patching,
    vision_fields,
    vision_of,
)

# What the configuration class assumes where config.json is silent.
_VISION: dict[str, Any] = {
    "num_heads": 16,
    "hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
}


def family(directory: Directory) -> Family:
    return open_qwen(directory, "qwen2_5_vl", pictures_of(directory))


def decoder(directory: Directory) -> Decoder:
    fields = language(directory.config)
    tied = bool(directory.config.get("tie_word_embeddings") or fields["tie_word_embeddings"])
    return text_decoder(directory, fields, weight_name, tied=tied, positions=positions)


def weight_name(name: str) -> str:
    """Published files have model.layers... beside visual...; transformers 5 nests both under model."""
    name = name.removeprefix("model.").removeprefix("language_model.").removeprefix("model.")
    return "" if name.startswith("visual.") else name


def export(directory: Directory, out: Path) -> None:
    """See Architecture.export."""
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as reference

    from headrace.engines.families.qwen_vl_tower import WindowedTower, export_tower

    config = Qwen2_5_VLConfig.from_pretrained(directory.path).vision_config
    vision: Any = reference.Qwen2_5_VisionTransformerPretrainedModel(config)
    pictures = pictures_of(directory)
    export_tower(directory, WindowedTower(vision), pictures.patching, pictures.vision, out / GRAPH)


def pictures_of(directory: Directory) -> QwenPictures:
    """How its pictures are cut, counted and embedded."""
    fields = vision_fields(directory, _VISION)
    window = int(fields["window_size"]) // int(fields["spatial_merge_size"]) // int(fields["patch_size"])
    vision = vision_of(fields, window=window)
    return QwenPictures(patching(directory, fields), vision, directory)
