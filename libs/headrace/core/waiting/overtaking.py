"""Who will come and go first: work that arrives while a request waits, and is due before it.

The line ahead is seen; those who are still to come are known by their rate alone. In a queue that is served by due time
a request is passed by everybody whose target is shorter, until so late that even they would be due after it: of each
target the share of the instance's time that it takes, for as long as both last (Cobham 1954 for fixed priorities;
Goldberg 1977 for due times).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.core.waiting.estimate import Wait
from headrace.core.waiting.work import NOTHING, Work

# All [I]; docs/figures.md, "The queue", has what came of others.
MEMORY_S = 600.0  # that an arrival counts, fading
WATCHED_S = 30.0  # at least: the first request of all is not one a moment
DRIFT = 0.3  # of what the rates say will come: one standard deviation of what comes instead
STREAMS_MAX = 1_024  # models and targets: the faintest gives way to a new one


@dataclass(slots=True)
class _Stream:
    target_s: float
    work: Work  # of those that came, each fading
    at_s: float


class Arrivals:
    """The work that comes, by model and target to the first token, at the rates of late."""

    __slots__ = ("_since_s", "_streams")

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._streams: dict[tuple[str, int], _Stream] = {}  # by model and half octaves of the target

    def add(self, model: str, target_s: float, work: Work, now_s: float) -> None:
        """work: of one request that has come now."""
        if self._since_s is None:
            self._since_s = now_s
        key = (model, round(2 * math.log2(max(target_s, 1e-3))))
        stream = self._streams.get(key)
        before = _faded(stream, now_s) if stream is not None else NOTHING
        if stream is None and len(self._streams) >= STREAMS_MAX:
            del self._streams[min(self._streams, key=lambda each: _faded(self._streams[each], now_s).count)]
        self._streams[key] = _Stream(target_s, before + work, now_s)

    def rates(self, now_s: float) -> list[tuple[str, float, Work]]:
        """Of each model and target: the work of a second."""
        if self._since_s is None:
            return []
        # What has been watched for less than the memory is the mean over the time watched.
        seconds = MEMORY_S * -math.expm1(-max(now_s - self._since_s, WATCHED_S) / MEMORY_S)
        return [
            (key[0], stream.target_s, _faded(stream, now_s).times(1.0 / seconds))
            for key, stream in self._streams.items()
        ]


def _faded(stream: _Stream, now_s: float) -> Work:
    return stream.work.times(math.exp(min(0.0, stream.at_s - now_s) / MEMORY_S))


@dataclass(frozen=True, slots=True)
class Stream:
    """Those of one target that come to one instance."""

    target_s: float
    share: float  # of its time that they take: seconds of service that a second brings
    var_s2: float  # and the variance of that: of as many as come, each of its length


def overtaken(wait: Wait, left_s: float, streams: Iterable[Stream]) -> Wait:
    """`wait` for those who stand before; with those who will come and go first it is longer. left_s: until the request
    is due itself."""
    able = sorted((left_s - stream.target_s, stream.share, stream.var_s2) for stream in streams)
    passing = [each for each in able if each[0] > 0.0]
    if wait.mean_s <= 0.0 or not passing:
        return wait
    mean_s, still = _until_passed(wait.mean_s, [(horizon_s, share) for horizon_s, share, _ in passing])
    # Whatever takes longer than expected is passed by more: a busy period's variance (Takacs 1962).
    drawn_out = 1.0 / (1.0 - still)
    var_s2 = wait.var_s2 + sum([var_s2 * min(mean_s, horizon_s) for horizon_s, _, var_s2 in passing])
    var_s2 += (DRIFT * (mean_s - wait.mean_s)) ** 2
    return Wait(mean_s, var_s2 * drawn_out * drawn_out)


def _until_passed(wait_s: float, passing: list[tuple[float, float]]) -> tuple[float, float]:
    """The least w with w = wait + sum of share * min(w, horizon), horizons ascending; and the share of those who pass
    to the end."""
    still = sum([share for _, share in passing])
    for horizon_s, share in passing:
        if still < 1.0 and wait_s <= horizon_s * (1.0 - still):
            break
        wait_s += share * horizon_s
        still -= share
    else:
        still = 0.0
    return wait_s / (1.0 - still), still
