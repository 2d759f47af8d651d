"""What a prompt makes an engine compute, iteration by iteration; headrace.core.stages.batch cuts it the same way."""

from headrace.core.cost import StepWork


def prefill_works(prompt_tokens: int, cached_tokens: int, chunk_tokens: int) -> tuple[StepWork, ...]:
    """Of a prompt alone: cut at multiples of chunk_tokens; what a prefix cache holds is not computed again."""
    assert 0 <= cached_tokens < prompt_tokens
    works, start = [], cached_tokens
    while start < prompt_tokens:
        stop = min(prompt_tokens, start - start % chunk_tokens + chunk_tokens)
        works.append(chunk_work(start, stop))
        start = stop
    return tuple(works)


def chunk_work(start: int, stop: int) -> StepWork:
    """tokens[start:stop] of a prompt."""
    size = stop - start
    return StepWork(size, size * (2 * start + size + 1) // 2)


def added(works: "list[StepWork]") -> StepWork:
    """Chunks of several prompts in one iteration."""
    return StepWork(sum(work.prefill_tokens for work in works), sum(work.prefill_pairs for work in works))
