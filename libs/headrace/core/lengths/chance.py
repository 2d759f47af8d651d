"""A number between 0 and 1 that belongs to a request: chance that is the same at every retry and in every process."""

from hashlib import blake2b

_RANGE = 1 << 64


def share_of(seed: int, request_id: str) -> float:
    """Uniform over request ids, strictly between 0 and 1."""
    digest = blake2b(request_id.encode(), digest_size=8, key=seed.to_bytes(8, "big", signed=True)).digest()
    return min((int.from_bytes(digest, "big") + 0.5) / _RANGE, 1 - 1e-12)
