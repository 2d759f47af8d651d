"""What the torch backend asks of a checkpoint: the decoder's geometry, its positions, where its weights lie.

One Decoder describes the language model of every family; what differs is data, not code. No torch here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import Unavailable
from headrace.core.types import MediaSpan

if TYPE_CHECKING:
    from headrace.engines.families.directory import Directory

Positions = NDArray[np.int64]  # [axes, tokens]: one axis, or three (time, row, column) for multimodal rope
Arrays = Mapping[str, NDArray[np.float32]]

# rope_type of config.json -> whether it changes the frequencies within max_position_embeddings
_ROPE_TYPES = {"default": False, "mrope": False, "dynamic": False, "linear": True, "llama3": True, "yarn": True}


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding (RoFormer, section 3.4.2) with what checkpoints add to it."""

    base: float
    width: int  # columns of a head that are rotated
    scaling: Mapping[str, Any] = field(default_factory=dict)  # rope_parameters of config.json; empty: none
    sections: tuple[int, ...] = ()  # frequencies by axis (Qwen2-VL, section 2.1); empty: one axis
    interleaved: bool = False  # Qwen3-VL: the axes alternate instead of following one another

    @property
    def kind(self) -> str:
        return str(self.scaling.get("rope_type", "default"))


def plain_positions(tokens: int, spans: Sequence[MediaSpan]) -> tuple[Positions, int]:
    """Every token is one further than the last."""
    return np.arange(tokens)[None], tokens


@dataclass(frozen=True, slots=True)
class Decoder:
    """Weights go by the names of a Hugging Face Llama: layers.<n>.self_attn.q_proj.weight, norm.weight ...

    rename turns a name of the checkpoint into one of those (and lm_head.weight, embed_tokens.weight), or into ""
    for a weight that is not the decoder's. Biases are used where the checkpoint has them. A weight that rename
    keeps and the decoder has no use for is an error at load: nothing is dropped silently.
    """

    directory: Path  # of *.safetensors; not read if load_weights is given
    fingerprint: str  # changes whenever a weight does
    layers: int
    width: int
    query_heads: int
    kv_heads: int
    head_width: int
    vocab: int | None  # rows of the embedding table, which may have more than the head; None: as many as there are
    norm_epsilon: float
    rope: Rope
    rename: Callable[[str], str]
    tied: bool  # the head is the embedding table, unless the checkpoint has a lm_head.weight
    activation: str = "silu"
    qk_norm: bool = False  # Qwen3: RMS norm of each head's queries and keys before the rope
    cross_layers: tuple[int, ...] = ()  # Mllama: these attend to the media's rows (families/crossing.py), nothing else
    deepstack: int = 0  # Qwen3-VL: embedding rows are (1 + deepstack) x width; part i + 1 is added behind layer i
    axes: int = 1  # rows that positions() returns

    # (token count, spans) -> positions of a prompt and the position of the token behind it
    positions: Callable[[int, Sequence[MediaSpan]], tuple[Positions, int]] = plain_positions
    load_weights: Callable[[], Arrays] | None = None  # instead of the directory: names as rename takes them
    # name -> learned prefix KV [layers, 2 (keys, values), kv_heads, length, head_width], keys rotated from position 0
    load_prefix: Callable[[str], NDArray[np.float32]] | None = None

    def __post_init__(self) -> None:
        assert self.query_heads % self.kv_heads == 0
        assert self.rope.width % 2 == 0
        assert self.axes == (len(self.rope.sections) or 1)

    @property
    def self_layers(self) -> int:
        return self.layers - len(self.cross_layers)

    @property
    def kv_values_per_token(self) -> int:
        """Numbers of KV that a token takes: ModelSpec.kv_bytes_per_token is these times the bytes of one."""
        return self.self_layers * 2 * self.kv_heads * self.head_width

    def cross_kv_tokens(self, rows: int) -> int:
        """KV of `rows` media rows in cross-attention layers, counted in tokens: MediaSpan.kv_tokens."""
        return -(-rows * len(self.cross_layers) // self.self_layers)


def text_decoder(
    directory: "Directory", config: Mapping[str, Any], rename: Callable[[str], str], **changes: Any
) -> Decoder:
    """The decoder that a Hugging Face text configuration describes; changes are fields of Decoder that it leaves open.

    Raises:
        Unavailable: the checkpoint has a rope or an attention window that the torch engine does not run.
    """
    refuse_sliding_window(directory.name, config)
    heads = int(config["num_attention_heads"])
    head_width = int(config.get("head_dim") or config["hidden_size"] // heads)
    rope = changes.pop("rope", None) or rope_of(directory.name, config, head_width)
    facts: dict[str, Any] = {
        "directory": directory.path,
        "fingerprint": directory.fingerprint,
        "layers": int(config["num_hidden_layers"]),
        "width": int(config["hidden_size"]),
        "query_heads": heads,
        "kv_heads": int(config.get("num_key_value_heads") or heads),
        "head_width": head_width,
        "vocab": int(config["vocab_size"]),
        "norm_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope": rope,
        "rename": rename,
        "tied": bool(config.get("tie_word_embeddings", False)),
        "activation": str(config.get("hidden_act", "silu")),
        "qk_norm": str(config.get("model_type", "")).startswith("qwen3"),
        "axes": len(rope.sections) or 1,
    }
    return Decoder(**{**facts, **changes})


def rope_of(name: str, config: Mapping[str, Any], head_width: int) -> Rope:
    """Rope of a text configuration, in the words of transformers 5 (rope_parameters) or of older files (rope_scaling).

    Dynamic scaling begins beyond max_position_embeddings, where the context ends: within it there is none.

    Raises:
        Unavailable: a scaling that is not known.
    """
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    parameters = {"original_max_position_embeddings": config.get("max_position_embeddings"), **stated}
    kind = str(parameters.get("rope_type") or parameters.get("type") or "default")
    if kind not in _ROPE_TYPES:
        raise Unavailable(f"{name}: rope scaling {kind!r} is not run by the torch engine; {', '.join(_ROPE_TYPES)} are")
    partial = float(parameters.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)
    return Rope(
        base=float(parameters.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        width=int(head_width * partial),
        scaling={**parameters, "rope_type": kind} if _ROPE_TYPES[kind] else {},
        sections=tuple(parameters.get("mrope_section") or ()),
        interleaved=bool(parameters.get("mrope_interleaved", False)),
    )


def refuse_sliding_window(name: str, config: Mapping[str, Any]) -> None:
    """A layer that forgets what lies further back than its window would be answered wrongly.

    Raises:
        Unavailable: a layer's window is shorter than the context.
    """
    window = config.get("sliding_window")
    if not window or not config.get("use_sliding_window", True):
        return
    kinds = config.get("layer_types") or ["sliding_attention"]
    if "sliding_attention" in kinds and window < config.get("max_position_embeddings", 0):
        raise Unavailable(f"{name} attends to a sliding window of {window} tokens, which the torch engine does not run")
