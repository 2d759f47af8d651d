"""KV block accounting: how many blocks a request takes at a worker."""

from headrace.core.types import Request


def blocks_for(tokens: int, block_tokens: int) -> int:
    """Blocks that hold `tokens` positions."""
    return -(-tokens // block_tokens)


def kv_tokens(request: Request, prefix_tokens: int) -> int:
    """Positions a request may grow to: prefix, prompt and all output. The same for every attempt at it."""
    return prefix_tokens + request.prompt.kv_tokens + request.sampling.max_tokens
