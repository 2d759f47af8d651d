"""Qwen3-VL: features of several tower layers enter the first decoder layers, three axes alternate in the rope, and the
language model is Qwen3's.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.engines.families import Family
from headrace.engines.families.decoder import Decoder, rope_of, text_decoder
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_config import language, number
from headrace.engines.families.llama_text import wrapped_name
from headrace.engines.families.qwen_vl import positions
from headrace.engines.families.qwen_vl_encoder import (
    GRAPH,
    QwenPictures,
    open_qwen,
    patching,
    vision_fields,
    vision_of,
)

# What the configuration classes assume where config.json is silent.
_VISION: dict[str, Any] = {
    "num_heads": 16,
    "hidden_size": 1152,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": (8, 16, 24),
}
_SECTIONS = (24, 20, 20)


def family(directory: Directory) -> Family:
    return open_qwen(directory, "qwen3_vl", pictures_of(directory), embed_parts=1 + _deep(directory))


def decoder(directory: Directory) -> Decoder:
    fields = language(directory.config)
    rope = rope_of(directory.name, fields, number(directory, fields, "head_dim"))
    return text_decoder(
        directory,
        fields,
        wrapped_name,
        rope=replace(rope, sections=rope.sections or _SECTIONS, interleaved=True),
        tied=bool(directory.config.get("tie_word_embeddings") or fields["tie_word_embeddings"]),
        deepstack=_deep(directory),
        positions=positions,
    )


def export(directory: Directory, out: Path) -> None:
    """See Architecture.export."""
    from transformers import Qwen3VLConfig
    from transformers.models.qwen3_vl import modeling_qwen3_vl as reference

    from headrace.engines.families.qwen_vl_tower import DeepstackTower, export_tower

    config = Qwen3VLConfig.from_pretrained(directory.path).vision_config
    vision: Any = reference.Qwen3VLVisionModel(config)
    pictures = pictures_of(directory)
    export_tower(directory, DeepstackTower(vision), pictures.patching, pictures.vision, out / GRAPH)


def _deep(directory: Directory) -> int:
    return len(vision_fields(directory, _VISION)["deepstack_visual_indexes"])


def pictures_of(directory: Directory) -> QwenPictures:
    """How its pictures are cut, counted and embedded."""
    fields = vision_fields(directory, _VISION)
    vision = vision_of(fields, table=math.isqrt(int(fields["num_position_embeddings"])))
    return QwenPictures(patching(directory, fields), vision, directory)
