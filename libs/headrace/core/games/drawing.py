"""Shared randomness without a call: shares in [0, 1) from a seed, an epoch and what they are for, the same on every
machine and in every version of Python.
"""

import hashlib

_BITS = 53  # of a double


def share(purpose: str, *of: int) -> float:
    """Blake2b over the numbers in decimal: uniform, and independent between different purposes and numbers."""
    words = ":".join((purpose, *map(str, of))).encode()
    digest = hashlib.blake2b(words, digest_size=8, person=b"headrace").digest()
    return (int.from_bytes(digest, "little") >> (64 - _BITS)) / float(2**_BITS)


def index_share(seed: int, epoch: int, step: int) -> float:
    """For the index that all players share."""
    return share("index", seed, epoch, step)


def action_share(seed: int, epoch: int, step: int, player: int) -> float:
    """For one player's own draw."""
    return share("action", seed, epoch, step, player)
