"""Every fuzz target for a moment: good inputs cut, spliced and changed, and whatever hypothesis thinks of."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds

RUNS = 150


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A few of the changes that libFuzzer makes."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            del out[at : at + rng.randrange(1, 9)]
        elif kind == 1:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 2 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 3:
            out[at:at] = out[max(0, at - 16) : at]
        else:
            out[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0", b"\x7f\xff\xff\xff"))
    return bytes(out)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_becomes_of_them(name: str) -> None:
    target, rng = TARGETS[name], random.Random(11)
    good = list(seeds(name))
    assert good
    for data in good:
        target(data)
    for _ in range(RUNS):
        target(mutated(rng, rng.choice(good)))


@pytest.mark.parametrize("name", TARGETS)
def test_anything(name: str) -> None:
    @settings(max_examples=RUNS, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.binary(max_size=400))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()
