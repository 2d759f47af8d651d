"""Configurations as the makers publish them: flat or nested, old names or new; read as transformers reads them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.core.types import MediaMeta
from headrace.engines.families.directory import ARCHITECTURES, Directory, open_decoder
from headrace.engines.families.mllama import pictures_of as mllama_pictures
from headrace.engines.families.qwen2_5_vl import pictures_of as qwen2_5_pictures
from headrace.engines.families.qwen3_vl import pictures_of as qwen3_pictures
from headrace.engines.families.qwen_vl import Vision

PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
QWEN2_5: dict[str, Any] = {
    "model_type": "qwen2_5_vl",
    "eos_token_id": 151645,
    "image_token_id": 151655,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
QWEN3: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "image_token_id": 151655,
    "tie_word_embeddings": True,
    "text_config": {
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000,
        "vocab_size": 151936,
    },
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_size": 1024,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
MLLAMA: dict[str, Any] = {
    "model_type": "mllama",
    "image_token_index": 128256,
    "text_config": {
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "model_type": "mllama_text_model",
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "vocab_size": 128256,
    },
    "vision_config": {"hidden_size": 1280, "image_size": 560, "patch_size": 14, "max_num_tiles": 4},
}
# Only what differs from the classes' defaults, as this one was published.
QWEN2_AUDIO: dict[str, Any] = {
    "model_type": "qwen2_audio",
    "audio_token_index": 151646,
    "audio_config": {"model_type": "qwen2_audio_encoder", "num_mel_bins": 128, "max_source_positions": 1500},
    "text_config": {
        "eos_token_id": 151645,
        "intermediate_size": 11008,
        "max_position_embeddings": 8192,
        "model_type": "qwen2",
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000,
        "sliding_window": 32768,
        "use_mrope": False,
        "vocab_size": 156032,
    },
}
CONFIGS = {config["model_type"]: config for config in (QWEN2_5, QWEN3, MLLAMA, QWEN2_AUDIO)}


def written(tmp_path: Path, config: dict[str, Any], preprocessor: dict[str, Any] | None = None) -> Directory:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor or PIXELS))
    return Directory(tmp_path)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_decoder_is_the_one_that_transformers_reads(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    written(tmp_path, CONFIGS[kind])
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    text, rope = config.text_config, config.text_config.rope_parameters
    found = open_decoder(tmp_path)
    extra = 8 if kind == "mllama" else 0
    assert found.layers == text.num_hidden_layers
    assert (found.width, found.vocab) == (text.hidden_size, text.vocab_size + extra)
    assert (found.query_heads, found.kv_heads) == (text.num_attention_heads, text.num_key_value_heads)
    assert found.head_width == (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    assert (found.norm_epsilon, found.activation) == (text.rms_norm_eps, text.hidden_act)
    assert found.rope.base == rope["rope_theta"]
    assert found.rope.kind == rope["rope_type"]
    assert list(found.rope.sections) == list(rope.get("mrope_section", []))
    assert found.tied == getattr(config, "tie_word_embeddings", False)
    assert list(found.cross_layers) == list(getattr(text, "cross_attention_layers", []))
    assert kind in ARCHITECTURES


def test_qwen2_5_vl_takes_bounds_by_their_old_names(tmp_path: Path) -> None:
    old = {**PIXELS, "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
    pictures = qwen2_5_pictures(written(tmp_path, QWEN2_5, old))
    assert (pictures.patching.pixels_min, pictures.patching.pixels_max) == (3136, 12845056)
    assert pictures.vision == Vision(merge=2, head_width=80, rope_base=10_000.0, window=4)
    photo = MediaMeta("image", "image/jpeg", 1024, 768, 1)
    assert (pictures.token_count(photo), pictures.patching.span_grid(photo)) == (999, (1, 27, 37))


def test_qwen3_vl_takes_bounds_by_their_new_names(tmp_path: Path) -> None:
    new = {**PIXELS, "size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16, "merge_size": 2}
    pictures = qwen3_pictures(written(tmp_path, QWEN3, new))
    assert (pictures.patching.pixels_min, pictures.patching.pixels_max) == (65536, 16777216)
    assert pictures.vision == Vision(merge=2, head_width=64, rope_base=10_000.0, table=48)
    assert open_decoder(tmp_path).deepstack == 3
    assert open_decoder(tmp_path).rope.interleaved


def test_a_picture_of_llama_3_2_vision(tmp_path: Path) -> None:
    """6,404 rows, whose KV in 8 layers is that of 1,601 tokens in the other 32."""
    size = {**PIXELS, "size": {"height": 560, "width": 560}, "max_image_tiles": 4}
    pictures = mllama_pictures(written(tmp_path, MLLAMA, size))
    photo = MediaMeta("image", "image/jpeg", 1024, 768, 1)
    assert pictures.token_count(photo) == 4 * 1601
    assert pictures.tiling.canvas(1024, 768).tiles == 4
    assert open_decoder(tmp_path).cross_kv_tokens(6404) == 1601
    assert replace(pictures.tiling, rows=1601).lanes == 1608
