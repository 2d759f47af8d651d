"""What a request is charged for, by kind: kinds and text always add up to the prompt."""

import pytest

from headrace.core.types import MediaSpan, Prompt, Usage
from headrace.core.usage import usage_of

TOKENS = (7,) * 20


@pytest.mark.parametrize(
    ("spans", "prefix_tokens", "usage"),
    [
        ((), 0, Usage(20, 3)),
        ((), 24, Usage(44, 3)),
        ((MediaSpan(0, 2, 6), MediaSpan(1, 9, 4, modality="audio")), 0, Usage(20, 3, 6, audio_tokens=4)),
        ((MediaSpan(0, 2, 9, modality="video"),), 24, Usage(44, 3, video_tokens=9)),
        ((MediaSpan(0, 2, 1, rows=40, kv_tokens=10),), 0, Usage(59, 3, 40)),  # one position, forty rows beside it
    ],
)
def test_media_count_by_their_rows(spans: tuple[MediaSpan, ...], prefix_tokens: int, usage: Usage) -> None:
    assert usage_of(Prompt(TOKENS, spans), prefix_tokens, 3) == usage
