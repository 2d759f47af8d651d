"""Small random checkpoints of real architectures, as Hugging Face directories: the same bytes for the same seed.

Weights are scaled so that signals neither vanish nor explode: greedy outputs vary with the prompt.
"""

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from headrace.engines.families.hf_tokens import byte_characters

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
VOCABULARY = 384  # 256 bytes, special tokens from 256 on, rows that no token has
CONTEXT = 2048

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}MEDIA{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build(kind: str, parent: Path, seed: int = 0, **changes: Any) -> Path:
    """The directory parent/<kind>, made by its builder. changes: whatever the builder takes."""
    folder = parent / kind
    BUILDERS[kind](folder, seed, **changes)
    return folder


def picture(width: int, height: int, seed: int = 0) -> bytes:
    """A PNG of smooth colours and a few hard edges: resizing and cropping matter."""
    rng = np.random.default_rng((seed, width, height))
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).copy()
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


# --- what every builder needs ---


def text_fields(**changes: Any) -> dict[str, Any]:
    """A language model of three layers, width 64, four heads on two KV heads."""
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 257,
        "pad_token_id": 258,
    }
    return {**fields, **changes}


def write_tokenizer(
    folder: Path, special: tuple[str, ...], template: str, extra: Mapping[str, str] | None = None
) -> None:
    """A byte is a token; START, END, PAD and the special ones follow from id 256. extra: names for processors."""
    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = (START, END, PAD, *special)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    if extra:
        config["extra_special_tokens"] = dict(extra)
    write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(template)


def special_id(special: tuple[str, ...], name: str) -> int:
    return 256 + 3 + special.index(name)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1))


def save_model(model: Any, folder: Path, seed: int) -> None:
    """New weights, drawn by the seed alone, and the configuration as transformers writes it."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    generator = torch.Generator().manual_seed(seed)
    tied = model.config.get_text_config().tie_word_embeddings
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            weight.copy_(_draw(name, weight, generator, tied))
    model.tie_weights()
    model.generation_config.eos_token_id = 257
    model.generation_config.pad_token_id = 258
    model.save_pretrained(folder)


def _draw(name: str, weight: Any, generator: Any, tied: bool) -> Any:
    import torch

    noise = torch.randn(weight.shape, generator=generator)
    if weight.dim() < 2:  # norms stay near one, biases and gates near zero
        return 1.0 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.1 * noise
    if "embed" in name and "patch" not in name:
        return noise * (0.1 if tied else 1.0)  # else a tied head would repeat the token that it was just given
    fan_in = weight[0].numel()
    return noise * 1.5 / fan_in**0.5


# --- architectures ---


def llama(folder: Path, seed: int, **changes: Any) -> None:
    import transformers as hf

    write_tokenizer(folder, (), CHATML)
    save_model(hf.LlamaForCausalLM(hf.LlamaConfig(**text_fields(**changes))), folder, seed)


def qwen2(folder: Path, seed: int, **changes: Any) -> None:
    """Biases in the attention, the head tied to the embeddings."""
    import transformers as hf

    write_tokenizer(folder, (), CHATML)
    fields = text_fields(**{"tie_word_embeddings": True, **changes})
    save_model(hf.Qwen2ForCausalLM(hf.Qwen2Config(**fields)), folder, seed)


def qwen3(folder: Path, seed: int, **changes: Any) -> None:
    """Norms of queries and keys, heads wider than their share of the width."""
    import transformers as hf

    write_tokenizer(folder, (), CHATML)
    fields = text_fields(**{"head_dim": 32, **changes})
    save_model(
        hf.Qwen3ForCausalLM(hf.Qwen3Config(**fields)), folder, seed + 2
    )  # those of seeds 0 and 1 fall into loops


LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CLIP_NUMBERS = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def llava(folder: Path, seed: int, **changes: Any) -> None:
    """LLaVA 1.5: CLIP, the layer before the last without its class token; all images before the text."""
    import transformers as hf

    special = ("<image>",)
    write_tokenizer(folder, special, LLAVA_TEMPLATE)
    vision = hf.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=7
    )
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config=hf.LlamaConfig(**text_fields()),
        image_token_index=special_id(special, "<image>"),
        image_seq_length=16,
        **changes,
    )
    save_model(hf.LlavaForConditionalGeneration(config), folder, seed)
    preprocessor = {
        **_CLIP_NUMBERS,
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 28},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 28, "width": 28},
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": 7,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }
    write_json(folder / "processor_config.json", processor)


ONEVISION_TEMPLATE = LLAVA_TEMPLATE.replace("'<image>\\n'", "'<image>'")


def llava_onevision(folder: Path, seed: int, **changes: Any) -> None:
    """SigLIP of two-by-two patches a tile, grids of up to nine tiles; more than two tiles' patches are shrunk."""
    import transformers as hf

    special = ("<image>", "<video>")
    write_tokenizer(folder, special, ONEVISION_TEMPLATE)
    pinpoints = [[28 * down, 28 * across] for down in (1, 2, 3) for across in (1, 2, 3)]
    vision = hf.SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        vision_use_head=False,
    )
    config = hf.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=hf.Qwen2Config(**text_fields()),
        image_token_index=special_id(special, "<image>"),
        video_token_index=special_id(special, "<video>"),
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_4",
        **changes,
    )
    save_model(hf.LlavaOnevisionForConditionalGeneration(config), folder, seed)
    preprocessor = {
        **_CLIP_NUMBERS,
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "do_resize": True,
        "size": {"height": 28, "width": 28},
        "resample": 3,
        "do_pad": True,
        "image_grid_pinpoints": pinpoints,
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "image_token": "<image>",
        "video_token": "<video>",
        "num_image_tokens": 16,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_4",
    }
    write_json(folder / "processor_config.json", processor)


def internvl(folder: Path, seed: int, **changes: Any) -> None:
    """Tiles of four by four patches that become two by two rows; up to six tiles and a thumbnail."""
    import transformers as hf

    special = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    template = LLAVA_TEMPLATE.replace("<image>", "<IMG_CONTEXT>")
    write_tokenizer(folder, special, template, dict(zip(names, special, strict=True)))
    vision = hf.InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=[28, 28],
        patch_size=[7, 7],
        layer_scale_init_value=1.0,
    )
    config = hf.InternVLConfig(
        vision_config=vision,
        text_config=hf.Qwen2Config(**text_fields()),
        image_token_id=special_id(special, "<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
        **changes,
    )
    save_model(hf.InternVLForConditionalGeneration(config), folder, seed)
    preprocessor = {
        **_CLIP_NUMBERS,
        "image_processor_type": "GotOcr2ImageProcessor",
        "do_resize": True,
        "size": {"height": 28, "width": 28},
        "resample": 3,
        "crop_to_patches": False,
        "min_patches": 1,
        "max_patches": 6,
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    write_json(folder / "processor_config.json", {"processor_class": "InternVLProcessor", "image_seq_length": 4})


BUILDERS: dict[str, Callable[..., None]] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "llava": llava,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
}
