"""What each autoscaling policy decides: a table of sights, and what a policy makes of them over time."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from headrace.core.scaling.base import PoolSight, Scaler
from headrace.core.scaling.forecast import Forecast
from headrace.core.scaling.published import Published
from tests.scaling.sights import LLM, pool, rate, sight


def once(policy: Scaler, seen: PoolSight, **told: float) -> int:
    (target,) = policy.targets(sight(seen, **told), 1000.0)
    return target.instances


def settled(seen: PoolSight, **told: float) -> int:
    """Ours, after ten minutes of the same."""
    policy = Forecast()
    for at in range(120):
        (target,) = policy.targets(sight(seen, **told), 1000.0 + 5.0 * at)
    return target.instances


@pytest.mark.parametrize(
    ("seen", "told", "instances", "why"),
    [
        (pool(3, 2000.0), {}, 3, "2000 over 800 an instance, rounded up"),
        (pool(5, 2000.0), {}, 3, "an epoch goes down too"),
        (pool(1, 2000.0), {}, 3, "and up by as many as it takes"),
        (pool(3, 0.0), {}, 0, "no load, no instance: the pool's least is the grants' to keep"),
        (pool(3, 2000.0, short=rate(8000.0)), {}, 3, "the long window counts"),
        (pool(3, 2000.0, backlog=1e6), {}, 3, "what waits is not seen"),
    ],
)
def test_published_at_an_epoch(seen: PoolSight, told: dict[str, float], instances: int, why: str) -> None:
    policy = Published()
    assert once(policy, seen) == seen.current, "the first epoch begins"
    (target,) = policy.targets(sight(seen, **told), 1300.0)
    assert target.instances == instances, why


@pytest.mark.parametrize(
    ("attainment", "short", "instances", "why"),
    [
        (1.0, 4000.0, 2, "nobody is late: the epoch is waited for"),
        (0.99, 4000.0, 2, "the threshold itself is kept"),
        (0.98, 4000.0, 5, "late: the formula at once, over the short window"),
        (0.5, 500.0, 2, "but never downwards"),
    ],
)
def test_published_between_epochs(attainment: float, short: float, instances: int, why: str) -> None:
    assert once(Published(), pool(2, 1000.0, short=rate(short)), attainment=attainment) == instances, why


@pytest.mark.parametrize(
    ("seen", "told", "instances", "why"),
    [
        (pool(3, 2000.0), {}, 3, "steady load, enough instances"),
        (pool(2, 2000.0), {}, 3, "steady load, one too few"),
        (pool(6, 2000.0), {}, 3, "steady load, too many"),
        (pool(3, 2150.0), {}, 3, "one less would be too close"),
        (
            pool(2, 1000.0, short=rate(4000.0), before=rate(4000.0)),
            {},
            6,
            "a burst: the short window counts, and its bound",
        ),
        (pool(2, 1000.0, short=rate(1300.0, 0.3)), {}, 2, "as much more as chance gives"),
        (pool(0, 0.0, backlog=1.0), {}, 1, "somebody waits for a pool that is off"),
        (pool(3, 0.0), {}, 0, "nobody came for as long as is remembered"),
        (pool(3, 0.0, backlog=1.0), {}, 1, "but the last one is not done"),
        (pool(2, 1000.0, backlog=60_000.0), {}, 4, "what is late when help comes is worked off by more"),
        (pool(2, 1000.0, backlog=4000.0), {}, 2, "a backlog within half the target is none"),
        (pool(2, 1000.0, backlog=20_000.0), {}, 2, "one that is over before help could come is none either"),
        (pool(2, 1000.0, **LLM), {"expected_s": 4.0}, 2, "the queue expects no late answers"),
        (pool(2, 1000.0, **LLM), {"expected_s": 90.0}, 4, "it expects late ones at the LLMs,"),
        (pool(2, 1000.0), {"expected_s": 90.0}, 2, "which encoders do not help"),
    ],
)
def test_ours(seen: PoolSight, told: dict[str, float], instances: int, why: str) -> None:
    policy = once(Forecast(), seen, **told) if instances > seen.ready else settled(seen, **told)
    assert policy == instances, why


def test_a_trend_is_extended_to_the_moment_at_which_an_instance_serves() -> None:
    rising: dict[str, Any] = {"short": rate(2000.0), "before": rate(1400.0), "long": rate(1000.0)}
    at_once, slow = pool(2, start_s=0.0, **rising), pool(2, start_s=60.0, **rising)
    assert once(Forecast(), at_once) < once(Forecast(), slow)
    step: dict[str, Any] = {**rising, "before": rate(1990.0)}
    assert once(Forecast(), pool(2, start_s=0.0, **step)) == once(Forecast(), pool(2, start_s=60.0, **step))


def test_what_is_starting_is_not_ordered_again() -> None:
    assert once(Forecast(), pool(2, 2000.0, starting=1)) == 3
    assert once(Forecast(), pool(0, 100.0, starting=1, backlog=5000.0)) == 1


def test_nothing_shrinks_before_it_was_seen_for_a_while() -> None:
    policy = Forecast()
    said = {at: policy.targets(sight(pool(4)), at)[0].instances for at in np.arange(1000.0, 1200.0, 5.0)}
    assert {at for at, instances in said.items() if instances < 4} == {at for at in said if at > 1000.0 + 120.0}


def followed(policy: Scaler, loads: Sequence[float], *, start: int = 2) -> list[int]:
    """Instances after each look, where every order is there at the next; windows of a rate that is measured anew."""
    instances, found = start, []
    for at, _ in enumerate(loads):
        short, before, long = (float(np.mean(loads[max(0, at - n) : at + 1])) for n in (5, 17, 59))
        spreads = (0.1 / math.sqrt(n) for n in (6.0, 12.0, 60.0))
        windows = [rate(each, spread) for each, spread in zip((short, before, long), spreads, strict=True)]
        seen = pool(instances, short=windows[0], before=windows[1], long=windows[2])
        instances = policy.targets(sight(seen), 1000.0 + 5.0 * at)[0].instances
        found.append(instances)
    return found


def changes(instances: Sequence[int]) -> int:
    return sum(a != b for a, b in pairwise(instances))


@pytest.mark.parametrize("level", [700.0, 1580.0, 1600.0, 3210.0, 8000.0])
def test_a_noisy_steady_load_makes_no_flapping(level: float) -> None:
    """Two hours; levels at which the formula lies between two numbers are among them."""
    loads = level * np.random.default_rng(1).normal(1.0, 0.1, 1440)
    needed = math.ceil(level / 800.0)
    found = followed(Forecast(), loads.tolist(), start=needed)
    assert changes(found) <= 2, "once to where it stays, and one more"
    assert needed <= found[-1] <= needed + 1 + needed // 5


def test_a_burst_and_its_end() -> None:
    """Up within the short window, down when the settling time is over, and to zero with nobody there."""
    loads = [800.0] * 60 + [4800.0] * 60 + [0.0] * 90
    found = followed(Forecast(), loads)
    assert max(found[:60]) <= 2
    assert found[60 + 6] >= 6
    assert min(found[70 : 120 + 24]) >= 6, "a lull shorter than the settling time changes nothing"
    assert found[-1] == 0
    assert changes(found) <= 16, "each order once, and down in steps as the peaks are forgotten"
