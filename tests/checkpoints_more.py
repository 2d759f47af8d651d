"""Small random checkpoints, continued: the Qwen-VL line, cross-attention (Mllama), sound (Qwen2-Audio)."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests import checkpoints
from tests.checkpoints import END, PAD, START, save_model, special_id, text_fields, write_json, write_tokenizer

VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_IMAGES = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "merge_size": 2,
    "temporal_patch_size": 2,
}


def vision_ids() -> dict[str, int]:
    return {
        "image_token_id": special_id(VISION, "<|image_pad|>"),
        "video_token_id": special_id(VISION, "<|video_pad|>"),
        "vision_start_token_id": special_id(VISION, "<|vision_start|>"),
        "vision_end_token_id": special_id(VISION, "<|vision_end|>"),
    }


def rewrite(model: Any, folder: Path, changes: Mapping[str, Callable[[Any], Any]]) -> None:
    """Weights whose names end so, changed: neither text nor media may drown the other, or outputs tell nothing."""
    import torch

    with torch.no_grad():
        for end, change in changes.items():
            (found,) = (weight for name, weight in model.named_parameters() if name.endswith(end))
            found.copy_(change(found))
    model.save_pretrained(folder)


def qwen2_5_vl(folder: Path, seed: int, **changes: Any) -> None:
    """Layers 0 and 2 of the tower attend within windows of 2 x 2 rows, layer 1 within the picture."""
    import transformers as hf

    write_tokenizer(folder, VISION, QWEN_TEMPLATE)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = hf.Qwen2_5_VLConfig(
        text_config=text_fields(rope_parameters=rope, **changes),
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 64,
            "patch_size": 7,
            "window_size": 28,
            "fullatt_block_indexes": [1],
        },
        **vision_ids(),
    )
    model = hf.Qwen2_5_VLForConditionalGeneration(config)
    save_model(model, folder, seed)
    rewrite(model, folder, {"visual.merger.mlp.2.weight": lambda weight: 8 * weight})
    size = {"shortest_edge": 28 * 28, "longest_edge": 14 * 14 * 48}
    numbers = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    write_json(folder / "preprocessor_config.json", {**QWEN_IMAGES, **numbers, "patch_size": 7, "size": size})
    write_json(folder / "processor_config.json", {"processor_class": "Qwen2_5_VLProcessor"})


def qwen3_vl(folder: Path, seed: int, **changes: Any) -> None:
    """Two layers of the tower feed the first two of the decoder; positions come from a table of 6 x 6."""
    import transformers as hf

    write_tokenizer(folder, VISION, QWEN_TEMPLATE)
    rope = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True, "rope_theta": 10000.0}
    config = hf.Qwen3VLConfig(
        text_config=text_fields(rope_parameters=rope, head_dim=32, **changes),
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 64,
            "patch_size": 8,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        },
        **vision_ids(),
    )
    save_model(hf.Qwen3VLForConditionalGeneration(config), folder, seed)
    size = {"shortest_edge": 32 * 32, "longest_edge": 16 * 16 * 48}
    numbers = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    write_json(folder / "preprocessor_config.json", {**QWEN_IMAGES, **numbers, "patch_size": 8, "size": size})
    write_json(folder / "processor_config.json", {"processor_class": "Qwen3VLProcessor"})


LLAMA_NAMES = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>", "<|image|>")
MLLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GATE = 0.8  # tanh 0.66: what a picture says is heard


def mllama(folder: Path, seed: int, **changes: Any) -> None:
    """Layers 1 and 3 of five attend across; up to four tiles of 28 x 28 pixels, five rows each.

    As in Llama 3.2 the picture's token lies behind the head's vocabulary, in the embedding table's extra rows.
    """
    import transformers as hf

    write_tokenizer(folder, LLAMA_NAMES, MLLAMA_TEMPLATE)
    names = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**names, "bos_token": LLAMA_NAMES[0]})
    image = special_id(LLAMA_NAMES, "<|image|>")
    layers = {"num_hidden_layers": 5, "cross_attention_layers": [1, 3]}
    text = text_fields(**{**layers, "vocab_size": image, "bos_token_id": 259, **changes})
    config = hf.MllamaConfig(
        text_config=text,
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_global_layers": 1,
            "attention_heads": 2,
            "intermediate_size": 48,
            "image_size": 28,
            "patch_size": 14,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0, 2],
            "vision_output_dim": 96,
        },
        image_token_index=image,
    )
    model = hf.MllamaForConditionalGeneration(config)
    save_model(model, folder, seed)
    gates = [name for name, weight in model.named_parameters() if weight.shape == (1,)]
    assert len(gates) == 9, gates
    opened = dict.fromkeys(gates, lambda gate: gate.new_full((1,), GATE))
    rewrite(model, folder, {**opened, "multi_modal_projector.weight": lambda weight: weight / 4})
    preprocessor = {
        "image_processor_type": "MllamaImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_image_tiles": 4,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": 28, "width": 28},
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    write_json(folder / "processor_config.json", {"processor_class": "MllamaProcessor"})


SOUND = ("<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>")
AUDIO_TEMPLATE = (
    "{% set count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}{% set count.value = count.value + 1 %}"
    "Audio {{ count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLIP_S = 3  # the checkpoint's window; real ones have 30


def qwen2_audio(folder: Path, seed: int, **changes: Any) -> None:
    """A tower of two layers over 3 s of sound: 300 frames of 128 bands, 75 rows at most."""
    import transformers as hf

    write_tokenizer(folder, SOUND, AUDIO_TEMPLATE)
    config = hf.Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "num_mel_bins": 128,
            "max_source_positions": 50 * CLIP_S,
        },
        text_config={"model_type": "qwen2", **text_fields(**changes)},
        audio_token_index=special_id(SOUND, "<|AUDIO|>"),
    )
    model = hf.Qwen2AudioForConditionalGeneration(config)
    save_model(model, folder, seed)
    rewrite(model, folder, {"multi_modal_projector.linear.weight": lambda weight: weight / 6})
    preprocessor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "chunk_length": CLIP_S,
        "feature_size": 128,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 16000 * CLIP_S,
        "nb_max_frames": 100 * CLIP_S,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": 16000,
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    write_json(folder / "processor_config.json", {"processor_class": "Qwen2AudioProcessor"})


BUILDERS = checkpoints.BUILDERS | {
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "mllama": mllama,
    "qwen2_audio": qwen2_audio,
}
assert (START, END, PAD) == ("<|im_start|>", "<|im_end|>", "<|pad|>")  # the templates spell them


def build(kind: str, parent: Path, seed: int = 0, **changes: Any) -> Path:
    """The directory parent/<kind> of any architecture; see checkpoints.build."""
    folder = parent / kind
    BUILDERS[kind](folder, seed, **changes)
    return folder
