"""From a prompt's words to the encoder's token ids: WordPiece as BERT has it, the middle of long prompts left out.

The question stands at the start or at the end: the first 128 and the last 384 tokens, as SSJF's released code cuts.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

HEAD_TOKENS, TAIL_TOKENS = 128, 384  # marks included: what the encoder has positions for
START, END = 101, 102  # [CLS], [SEP]
_CHARACTERS_PER_TOKEN = 16  # a token of ordinary text has four or five: what lies between is never looked at

Ids = NDArray[np.int64]


@lru_cache(maxsize=1)
def wordpiece() -> Tokenizer:
    """The uncased vocabulary of BERT, which MiniLM shares (Devlin et al., 2019)."""
    source = resources.files("headrace") / "assets" / "lengths" / "wordpiece.txt.gz"
    words = gzip.decompress(source.read_bytes()).decode().splitlines()
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@dataclass(frozen=True, slots=True)
class Reader:
    head: int = HEAD_TOKENS
    tail: int = TAIL_TOKENS

    def __post_init__(self) -> None:
        if self.head < 2 or self.tail < 2 or self.head + self.tail > HEAD_TOKENS + TAIL_TOKENS:
            raise ValueError(f"head and tail are at least 2 and together at most {HEAD_TOKENS + TAIL_TOKENS} tokens")

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, marks included, at most head + tail of them."""
        found = wordpiece().encode_batch([self._shortened(text) for text in texts], add_special_tokens=False)
        return [[START, *self._cut(one.ids), END] for one in found]

    def _shortened(self, text: str) -> str:
        """A megabyte of prompt must not cost a second."""
        most = (self.head + self.tail) * _CHARACTERS_PER_TOKEN
        return text if len(text) <= 2 * most else f"{text[:most]} {text[-most:]}"

    def _cut(self, ids: list[int]) -> list[int]:
        head, tail = self.head - 1, self.tail - 1
        return ids if len(ids) <= head + tail else ids[:head] + ids[-tail:]


def padded(ids: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Ids and mask, int64 [texts, longest]."""
    longest = max(map(len, ids))
    out, mask = (np.zeros((len(ids), longest), np.int64) for _ in range(2))
    for row, one in enumerate(ids):
        out[row, : len(one)], mask[row, : len(one)] = one, 1
    return out, mask
