"""The tokenizer of a Hugging Face directory: tokenizer.json, the names of its special tokens, the bytes of each token.

Byte-level BPE (GPT-2's stand-in characters) and sentencepiece's way (a low line for a space, <0x0A> for a byte).
"""

import re
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from headrace.core.errors import Unavailable
from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_config import optional_json

SPACE = "\u2581"  # sentencepiece's stand-in for a space
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Vocabulary:
    tokenizer: Tokenizer
    special: dict[str, str]  # bos_token, eos_token ... -> the token, for the chat template
    head: tuple[int, ...]  # what stands before a text whose special tokens are added: the begin of sequence, or nothing
    byte_level: bool
    special_ids: frozenset[int]
    plain_added: dict[int, str]  # added tokens that are no special ones: they are text

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def token_id(self, token: str) -> int:
        """Raises Unavailable: the vocabulary has no such token."""
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            raise Unavailable(f"the tokenizer has no token {token!r}, which its model's media need")
        return found

    def plainly(self, word: str) -> list[int]:
        """A special token's name as a text like any other: character by character, it never becomes that token."""
        found: list[int] = []
        for character in word:
            known = self.tokenizer.token_to_id(character)
            found += [known] if known is not None else self.encode(character)
        return found

    def pieces(self, size: int) -> list[bytes]:
        """Token id -> the bytes it adds to the output; special tokens and rows that no token has add none."""
        vocabulary: dict[str, int] = self.tokenizer.get_vocab(with_added_tokens=True)
        found = [b""] * max(size, max(vocabulary.values(), default=-1) + 1)
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        for token, number in vocabulary.items():
            if number in self.special_ids:
                continue
            if number in self.plain_added:
                found[number] = self.plain_added[number].encode()
            elif self.byte_level:
                found[number] = _byte_level(token, byte_of)
            else:
                found[number] = _sentencepiece(token)
        return found


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in of each byte: 188 are themselves, the rest follow from U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]


def load_vocabulary(directory: Directory) -> Vocabulary:
    """Raises Unavailable: tokenizer.json is missing or broken."""
    description = directory.json("tokenizer.json")
    tokenizer: Tokenizer = Tokenizer.from_file(str(directory.path / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = optional_json(directory, "tokenizer_config.json")
    added = description.get("added_tokens") or []
    special = _special_names(directory, config)
    return Vocabulary(
        tokenizer,
        special,
        _head(tokenizer, config, special.get("bos_token", "")),
        "ByteLevel" in _kinds(description.get("decoder")) | _kinds(description.get("pre_tokenizer")),
        frozenset(token["id"] for token in added if token["special"]),
        {token["id"]: token["content"] for token in added if not token["special"]},
    )


def _special_names(directory: Directory, config: dict[str, Any]) -> dict[str, str]:
    known = {**optional_json(directory, "special_tokens_map.json"), **config}
    found: dict[str, str] = {}
    for name in _NAMES:
        token = known.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            found[name] = text
    return found


def _head(tokenizer: Tokenizer, config: dict[str, Any], bos: str) -> tuple[int, ...]:
    """tokenizer_config.json's add_bos_token, where it says so; else what tokenizer.json's post-processor does."""
    wanted = config.get("add_bos_token")
    if wanted is None:
        return tuple(tokenizer.encode("", add_special_tokens=True).ids)
    number = tokenizer.token_to_id(bos) if wanted and bos else None
    return () if number is None else (number,)


def _kinds(part: dict[str, Any] | None) -> set[str]:
    """The types of a component of tokenizer.json, and of those it is a sequence of."""
    if not part:
        return set()
    inner = [*part.get("decoders", ()), *part.get("pretokenizers", ())]
    return {part["type"]}.union(*(_kinds(one) for one in inner))


def _byte_level(token: str, byte_of: dict[str, int]) -> bytes:
    if all(character in byte_of for character in token):
        return bytes(byte_of[character] for character in token)
    return token.encode()


def _sentencepiece(token: str) -> bytes:
    if found := _BYTE.fullmatch(token):
        return bytes([int(found.group(1), 16)])
    return token.replace(SPACE, " ").encode()
