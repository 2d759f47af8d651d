"""The truth that estimates are held against: slots that serve a line first come, first served, by list scheduling."""

import heapq
import math
from collections.abc import Sequence
from random import Random
from statistics import NormalDist

from headrace.core.lengths import LEVELS, Prediction
from headrace.core.lengths.constant import CHAT
from headrace.core.waiting import NOTHING, Work


def log_normal(median: float, spread: float) -> Prediction:
    """spread: standard deviation of the logarithm."""
    return Prediction.of([median * math.exp(spread * NormalDist().inv_cdf(level)) for level in LEVELS])


ANSWERS = {"chat": CHAT, "narrow": log_normal(100.0, 0.5), "wide": log_normal(100.0, 0.8)}


def drawn(answers: Prediction, random: Random) -> int:
    return max(1, round(answers.quantile(random.random())))


def steady(answers: Prediction, slots: int, random: Random) -> list[tuple[int, int]]:
    """What runs in slots that have been busy for long: whole length and what is there of it, each."""
    return [_met(answers, random) for _ in range(slots)]


def _met(answers: Prediction, random: Random) -> tuple[int, int]:
    left = random.uniform(10.0, 20.0) * answers.mean
    while left >= (length := drawn(answers, random)):
        left -= length
    return length, int(left)


def fresh(answers: Prediction, slots: int, random: Random) -> list[tuple[int, int]]:
    """All have just begun, together."""
    return [(drawn(answers, random), 0) for _ in range(slots)]


def start_steps(slots: int, running: Sequence[tuple[int, int]], line: Sequence[int]) -> int:
    """Iterations until a slot is free behind everybody."""
    ends = [0] * (slots - len(running)) + [length - emitted for length, emitted in running]
    heapq.heapify(ends)
    for length in line:
        heapq.heappush(ends, heapq.heappop(ends) + length)
    return ends[0]


def last_steps(slots: int, running: Sequence[tuple[int, int]], ahead: Sequence[int], own: Sequence[int]) -> int:
    """Iterations until the last of `own` has ended."""
    ends = [0] * (slots - len(running)) + [length - emitted for length, emitted in running]
    heapq.heapify(ends)
    last = 0
    for place, length in enumerate([*ahead, *own]):
        end = heapq.heappop(ends) + length
        heapq.heappush(ends, end)
        if place >= len(ahead):
            last = max(last, end)
    return last


def work(answers: Prediction, count: int = 1) -> Work:
    """Of so many requests of which nothing else is known."""
    return Work.predicted(answers, 0.0).times(count)


def running_work(answers: Prediction, running: Sequence[tuple[int, int]]) -> Work:
    total = NOTHING
    for _, emitted in running:
        total += Work.predicted(answers.given(emitted), 0.0)
    return total
