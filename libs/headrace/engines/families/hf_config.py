"""Facts of a Hugging Face config.json: the language model's fields with the defaults left out, the spec.

A config.json may hold only what differs from the architecture's defaults; those stand here, so that services
need no transformers to know a model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from headrace.core.errors import Unavailable
from headrace.engines.base import ModelSpec
from headrace.engines.families.directory import Directory

BLOCK_TOKENS = 16
KV_BYTES = 4  # float32 keys and values
MEDIA_MAX = 16  # parts a request may carry; its context bounds their rows

_QWEN: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "use_sliding_window": False,
}
_LLAMA: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "eos_token_id": 2,
}
# model_type of the language model -> what its configuration class assumes
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {
        **_LLAMA,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head_dim": 128},
    "qwen2_5_vl_text": {
        **_QWEN,
        "vocab_size": 152064,
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "eos_token_id": 151645,
    },
    "qwen3_vl_text": {**_QWEN, "head_dim": 128, "max_position_embeddings": 128_000, "rope_theta": 500_000.0},
    "mllama_text_model": {
        **_LLAMA,
        "vocab_size": 128256,
        "intermediate_size": 14336,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "eos_token_id": 128001,
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    },
}
# model_type of the whole -> the language model's where text_config does not say
_LANGUAGE = {
    "llava": "llama",
    "llava_onevision": "qwen2",
    "internvl": "qwen2",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "mllama": "mllama_text_model",
    "qwen2_audio": "qwen2",
}


def language(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's fields: text_config (else the file itself) over the defaults of its model_type.

    head_dim and num_key_value_heads are always there, where hidden_size and num_attention_heads are.
    """
    inner = config.get("text_config") or config
    kind = inner.get("model_type") or _LANGUAGE.get(config.get("model_type", ""), "")
    kind = _LANGUAGE.get(kind, kind)
    said = {name: value for name, value in inner.items() if value is not None}
    fields = {**_DEFAULTS.get(kind, {}), **said, "model_type": kind}
    heads = fields.get("num_attention_heads")
    if heads:
        fields.setdefault("num_key_value_heads", heads)
        if "hidden_size" in fields:
            fields.setdefault("head_dim", fields["hidden_size"] // heads)
    return fields


def number(directory: Directory, fields: Mapping[str, Any], name: str) -> int:
    """A whole number above zero.

    Raises:
        Unavailable: the configuration does not have it.
    """
    value = fields.get(name)
    if not isinstance(value, int) or value < 1:
        raise Unavailable(f"{directory.path}/config.json: {name} is {value!r}, a number above zero is needed")
    return value


def optional_json(directory: Directory, name: str) -> dict[str, Any]:
    """A JSON file of the directory; empty where there is none."""
    return directory.json(name) if (directory.path / name).is_file() else {}


def vision(
    directory: Directory, defaults: Mapping[str, Any], absent: Mapping[str, Any], kinds: tuple[str, ...]
) -> dict[str, Any]:
    """vision_config over its class's defaults; absent: what the whole's class assumes if there is none. kinds: the
    towers that the family's tiling fits, the usual one first.

    Raises:
        Unavailable: another tower.
    """
    fields = {**defaults, **(directory.config.get("vision_config") or absent)}
    kind = fields.setdefault("model_type", kinds[0])
    if kind not in kinds:
        raise Unavailable(f"{directory.name}: its vision tower {kind!r} is not known here; {', '.join(kinds)} are")
    return fields


def named_token(directory: Directory, name: str, default: str) -> str:
    """A token that processors know by a name (image_token ...): the tokenizer's word, the processor's, the default."""
    tokenizer = optional_json(directory, "tokenizer_config.json")
    processor = optional_json(directory, "processor_config.json")
    extra = tokenizer.get("extra_special_tokens")
    for said in (extra if isinstance(extra, dict) else {}, tokenizer, processor):
        token = said.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            return text
    return default


def eos_ids(directory: Directory) -> frozenset[int]:
    """The ends that transformers' generate knows: generation_config.json's, else config.json's."""
    generation = optional_json(directory, "generation_config.json")
    for said in (generation, directory.config, language(directory.config)):
        found = said.get("eos_token_id")
        if found is not None:
            return frozenset(found if isinstance(found, list) else [found])
    return frozenset()


def model_spec(
    directory: Directory,
    *,
    family: str,
    modalities: tuple[str, ...] = (),
    placeholder_id: int = 0,
    embed_parts: int = 1,
    self_layers: int | None = None,
    contract: Literal["decoder", "cross"] = "decoder",
    max_media: int = MEDIA_MAX,
) -> ModelSpec:
    """The facts that every room may ask for.

    embed_parts: rows of an embedding are so many times the model's width. self_layers: layers that keep KV of the
    prompt's tokens, where that is not all of them.
    """
    fields = language(directory.config)
    layers = self_layers or number(directory, fields, "num_hidden_layers")
    kv_width = number(directory, fields, "num_key_value_heads") * number(directory, fields, "head_dim")
    return ModelSpec(
        name=directory.name,
        family=family,
        context_tokens=number(directory, fields, "max_position_embeddings"),
        vocab_size=number(directory, fields, "vocab_size"),
        eos_ids=eos_ids(directory),
        placeholder_id=placeholder_id,
        embed_width=embed_parts * number(directory, fields, "hidden_size"),
        kv_bytes_per_token=layers * 2 * kv_width * KV_BYTES,
        block_tokens=BLOCK_TOKENS,
        modalities=modalities,
        max_media=max_media if modalities else 0,
        prefix_tokens={},
        contract=contract,
    )


def text_file(path: Path) -> str:
    """Raises Unavailable: it is not there, or no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"{path} cannot be read: {error}") from error
