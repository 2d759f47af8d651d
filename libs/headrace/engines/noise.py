"""Gumbel noise keyed by (seed, index): whole rows, or only at some of their columns, bit for bit the same.

Philox 4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is counter-based: the noise of a
column is a function of its number alone. numpy's own generator makes whole rows; here it is also computed for
scattered columns of many rows at once.
"""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Rows = NDArray[np.float64]
Columns = NDArray[np.int64]

# Below this many columns of a row, scattered computation is cheaper than numpy's whole row of 49,152 words (240 us).
SCATTERED_MAX = 512
_MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)
_WEYL = np.array([0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64)
_ROUNDS = 10
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def key_of(seed: int, index: int) -> Words:
    return np.array([seed & (2**64 - 1), index], np.uint64)


def row_words(key: Words, columns: int) -> Words:
    """The words of columns 0 .. columns - 1."""
    words: Words = np.random.Philox(key=key).random_raw(columns)
    return words


def words_at(keys: Words, rows: Columns, columns: Columns) -> Words:
    """Word columns[i] of the row with keys[rows[i]], for each i; keys is [n, 2]."""
    if len(columns) > SCATTERED_MAX * len(keys):
        size = int(columns.max()) + 1
        return np.stack([row_words(key, size) for key in keys])[rows, columns]
    block = columns.astype(np.uint64)
    lane = (block & np.uint64(3)).astype(np.int64)
    counter = np.zeros((4, len(columns)), np.uint64)
    counter[0] = (block >> np.uint64(2)) + np.uint64(1)  # numpy counts before it generates
    return _philox(counter, keys[rows].T.copy())[lane, np.arange(len(columns))]


def _philox(x: Words, key: Words) -> Words:
    """Counters [4, n] and keys [2, n] -> words [4, n]."""
    for turn in range(_ROUNDS):
        if turn:
            key = key + _WEYL[:, None]
        product_of = x[0::2]
        high, low = _high(product_of, _MULTIPLIERS[:, None]), product_of * _MULTIPLIERS[:, None]
        x = np.stack([high[1] ^ x[1] ^ key[0], low[1], high[0] ^ x[3] ^ key[1], low[0]])
    return x


def _high(a: Words, b: Words) -> Words:
    """The upper 64 bits of the 128-bit products."""
    a_high, a_low, b_high, b_low = a >> _HALF, a & _LOW, b >> _HALF, b & _LOW
    middle = a_high * b_low + (a_low * b_low >> _HALF)
    other = a_low * b_high + (middle & _LOW)
    high: Words = a_high * b_high + (middle >> _HALF) + (other >> _HALF)
    return high


def gumbel(words: Words) -> Rows:
    """Standard Gumbel noise: -log(-log(u)) with u the words' upper 52 bits and a half more, so that it is
    exact, inside (0, 1), and both logarithms are finite."""
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) / 2**52
    noise: Rows = -np.log(-np.log(uniform))
    return noise


def word_reaching(noise: float) -> np.uint64:
    """Every word whose Gumbel noise reaches this is at least as large; few smaller ones than those are, too."""
    uniform = float(np.exp(-np.exp(-noise))) * (1 - 1e-9)  # more than the logarithms can be off
    return np.uint64(max(0, int(min(uniform, 1 - 2**-53) * 2**64) - 2**12))  # and the half that gumbel() adds
