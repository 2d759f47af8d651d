"""When a request ends: every reason, and which wins when two meet at one token."""

import pytest

from headrace.core.types import FinishReason, Sampling
from headrace.worker.finish import Finish

EOS = 2
PIECES = [b"", b"the", b"", b" end", b" e", b"nd", b"\xc3", b"\xa9", b"xyz"]

# why, sampling, tokens, index of the token that ends it (None: none does), reason
TABLE: list[tuple[str, Sampling, list[int], int | None, FinishReason | None]] = [
    ("eos ends it", Sampling(8), [1, EOS], 1, "stop"),
    ("ignore_eos goes on", Sampling(8, ignore_eos=True), [1, EOS, 1], None, None),
    ("ignored eos still counts", Sampling(2, ignore_eos=True), [1, EOS], 1, "length"),
    ("length", Sampling(3), [1, 1, 1], 2, "length"),
    ("one token", Sampling(1), [1], 0, "length"),
    ("eos as the last allowed token is a stop", Sampling(2), [1, EOS], 1, "stop"),
    ("stop string in one token", Sampling(8, stop=("end",)), [1, 3], 1, "stop"),
    ("stop string across tokens", Sampling(8, stop=("end",)), [1, 4, 5], 2, "stop"),
    ("stop string across three tokens", Sampling(8, stop=("the end",)), [1, 4, 5], 2, "stop"),
    ("its beginning alone is none", Sampling(8, stop=("ends",)), [1, 4, 5, 1], None, None),
    ("inside a longer token", Sampling(8, stop=("y",)), [1, 8], 1, "stop"),
    ("the second of two", Sampling(8, stop=("zzz", "nd")), [4, 5], 1, "stop"),
    ("a character split over tokens", Sampling(8, stop=("é",)), [6, 7], 1, "stop"),
    ("an empty stop string never ends anything", Sampling(3, stop=("",)), [1, 1], None, None),
    ("stop string as the last allowed token is a stop", Sampling(2, stop=("end",)), [1, 3], 1, "stop"),
]


@pytest.mark.parametrize(("why", "sampling", "tokens", "at", "reason"), TABLE, ids=[row[0] for row in TABLE])
def test_finish(why: str, sampling: Sampling, tokens: list[int], at: int | None, reason: FinishReason | None) -> None:
    finish = Finish(sampling, frozenset({EOS}), PIECES)
    told = [finish.after(token) for token in tokens]
    assert told[: at if at is not None else len(told)] == [None] * (at if at is not None else len(told)), why
    assert reason is None or (at is not None and told[at] == reason), why


@pytest.mark.parametrize(("why", "sampling", "tokens", "at", "reason"), TABLE, ids=[row[0] for row in TABLE])
def test_replayed_tokens_end_it_as_they_did(
    why: str, sampling: Sampling, tokens: list[int], at: int | None, reason: FinishReason | None
) -> None:
    """A worker that died before it told the end: whoever replays the tokens finds the same end, or goes on the same."""
    for cut in range(len(tokens) + 1):
        finish = Finish(sampling, frozenset({EOS}), PIECES)
        replayed = finish.after_all(tokens[:cut])
        told = [replayed] if replayed else [finish.after(token) for token in tokens[cut:]]
        assert next((one for one in told if one), None) == reason, (why, cut)
