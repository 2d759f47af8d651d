"""Targets within limits and GPUs: whatever a policy asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.scaling.base import PoolSight, Target
from headrace.core.scaling.grants import granted
from tests.scaling.sights import LLM, pool


@pytest.mark.parametrize(
    ("encoders", "llms", "gpus_max", "given_", "why"),
    [
        (3, 2, 16, [3, 2], "what fits is given"),
        (9, 2, 12, [4, 2], "what does not fit is cut"),
        (4, 3, 12, [4, 2], "four GPUs are free: the pool that lacks more has them"),
        (2, 9, 99, [2, 9], "up to the most of each"),
        (0, 1, 12, [0, 1], "less is less"),
    ],
)
def test_grants(encoders: int, llms: int, gpus_max: int, given_: list[int], why: str) -> None:
    pools = (pool(2, least=0, most=10), pool(1, least=1, most=9, **LLM) if llms < 2 else pool(2, most=9, **LLM))
    asked = [Target("encode", encoders, "asked"), Target("llm", llms, "asked")]
    assert [target.instances for target in granted(pools, asked, gpus_max)] == given_, why


def test_what_drains_keeps_its_gpus() -> None:
    pools = (pool(2, draining=3), pool(1, **LLM))
    targets = granted(pools, [Target("encode", 6, "load"), Target("llm", 1, "load")], 12)
    assert targets[0] == Target("encode", 5, "load; 1 more when GPUs are free")


def test_what_will_drain_keeps_its_gpus_until_then() -> None:
    pools = (pool(4), pool(1, **LLM))
    targets = granted(pools, [Target("encode", 0, "idle"), Target("llm", 2, "load")], 8)
    assert [target.instances for target in targets] == [0, 1]


def test_a_start_that_is_given_up_frees_its_gpus_at_once() -> None:
    pools = (pool(1, starting=4), pool(1, **LLM))
    targets = granted(pools, [Target("encode", 1, "load"), Target("llm", 2, "load")], 9)
    assert [target.instances for target in targets] == [1, 2]


counts = st.integers(0, 8)


@st.composite
def pools(draw: st.DrawFn) -> PoolSight:
    least = draw(st.integers(0, 3))
    return pool(
        draw(counts),
        name=draw(st.uuids()).hex,
        gpus=draw(st.sampled_from([1, 2, 4, 8])),
        starting=draw(counts),
        draining=draw(counts),
        least=least,
        most=draw(st.integers(least, 8)),
    )


@given(st.lists(st.tuples(pools(), st.integers(0, 30)), min_size=1, max_size=4), st.integers(-8, 24))
def test_limits_are_kept(asked: list[tuple[PoolSight, int]], spare: int) -> None:
    seen = [each for each, _ in asked]
    held = sum((each.current + each.draining) * each.gpus for each in seen)
    gpus_max = max(0, held + spare)
    targets = granted(seen, [Target(each.name, wanted, "") for each, wanted in asked], gpus_max)
    after = sum(
        (max(target.instances, each.ready) + each.draining) * each.gpus
        for each, target in zip(seen, targets, strict=True)
    )
    assert after <= max(gpus_max, held), "GPUs"
    for (each, wanted), target in zip(asked, targets, strict=True):
        within = min(max(wanted, each.least), each.most)
        assert target.instances == within or each.current <= target.instances < within
        assert target.instances <= each.most
        if target.instances < each.least:
            lack = gpus_max - after
            assert lack < each.gpus, "below its least for want of GPUs alone"
