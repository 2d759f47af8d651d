"""A worker whose governor is silent: its fallback at once, then its own level of the published policy, never more."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.control.constants import H100
from headrace.control.power import watts_at
from headrace.core.budget.policy import BadPolicy
from headrace.core.budget.record import Play, RowPlay
from headrace.mesh.sensors import DeviceReading, Sensors
from headrace.mesh.store import Store
from headrace.v1 import governor_pb2
from headrace.worker.devices import Devices
from headrace.worker.plant import DEVICE, Plant
from headrace.worker.playing import level_of, load_of, under_fallback
from tests.power.played import anything, policy
from tests.worker.kit import Mesh, Peer, until
from tests.worker.test_caps import Governor

pytestmark = pytest.mark.timeout(60)

ME = "prefill-0"
ROW = RowPlay(("encode-0", ME, "decode-0"), 1, (2, 2, 2), (700.0, 700.0, 700.0), 1_300.0)
FALLBACK_W = 433.0
LEAST_W = watts_at(H100, H100.prefill_w, H100.speed_least)


@pytest.fixture
async def governor(peer: Peer) -> Governor:
    governor = Governor(peer)
    await governor.listen()
    return governor


def cap(governor: Governor, cap_w: float, lease_s: float) -> None:
    one = governor_pb2.DeviceCap(device=DEVICE, cap_w=cap_w, fallback_w=FALLBACK_W, reason="the row is over budget")
    governor.send([governor_pb2.WorkerCaps(worker=ME, devices=[one])], lease_s)


@asynccontextmanager
async def a_worker(mesh: Mesh) -> AsyncIterator[tuple[Plant, Store]]:
    plant = Plant(H100, 1, 25.0, ME, asyncio.get_running_loop().time())
    store = await Store.connect(mesh.redis_url, f"test-{mesh.directory.name}")
    async with mesh.worker(ME, "prefill", devices=Devices(Sensors([]), plant)):
        yield plant, store
    await store.close()


def bytes_of(row: RowPlay = ROW, version: str = policy().version) -> bytes:
    return Play(version, {"row-0": row}).to_bytes()


async def test_it_goes_on_at_its_own_level_within_its_fallback(mesh: Mesh, peer: Peer, governor: Governor) -> None:
    """It idles: the level of no load, whatever others' loads were; each epoch has one of its own."""

    def own_w() -> float:
        level = level_of(policy(), ROW, 1, 0.0, time.time())
        return under_fallback(level, FALLBACK_W, LEAST_W, 700.0)

    async with a_worker(mesh) as (plant, store):
        await store.put_policy(policy().to_bytes(), bytes_of())
        cap(governor, 600.0, 1.0)
        await until(lambda: plant.cap_w == 600.0)
        await until(lambda: plant.cap_w == FALLBACK_W, 3.0)
        # Of 400 epochs 9 allow more than the fallback: then the next one shows that it follows.
        await until(lambda: plant.cap_w == pytest.approx(own_w()) and plant.cap_w < FALLBACK_W, 14.0)
        cap(governor, 600.0, 30.0)
        await until(lambda: plant.cap_w == 600.0, 2.0)


@pytest.mark.parametrize(
    "told",
    [
        None,
        (b"damaged", bytes_of()),
        (policy().to_bytes(), b"{}"),
        (policy().to_bytes(), bytes_of(version="another")),
        (policy().to_bytes(), bytes_of(replace(ROW, workers=("other-0",)))),
        (policy().to_bytes(), bytes_of(replace(ROW, classes=(9, 9, 9)))),
    ],
)
async def test_with_nothing_to_go_by_it_keeps_its_fallback(
    mesh: Mesh, peer: Peer, governor: Governor, told: tuple[bytes, bytes] | None
) -> None:
    async with a_worker(mesh) as (plant, store):
        if told is not None:
            await store.put_policy(*told)
        cap(governor, 600.0, 0.3)
        await until(lambda: plant.cap_w == FALLBACK_W, 3.0)
        await asyncio.sleep(1.2)
        assert plant.cap_w == FALLBACK_W


@given(
    st.integers(0, 20),
    st.lists(st.floats(0.0, 2.0), min_size=3, max_size=3),
    st.lists(st.floats(-3e3, 3e3), min_size=3, max_size=3),
    st.lists(st.floats(150.0, 700.0), min_size=3, max_size=3),
    st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)),
)
@settings(max_examples=60, deadline=None)
def test_together_they_draw_no_more_than_their_fallbacks(
    seed: int, loads: list[float], clocks: list[float], fallbacks: list[float], seen: tuple[int, int, int, int]
) -> None:
    """Whatever the policy says, however far clocks are apart and although each sees another load."""
    row = replace(ROW, headroom=seen[0], classes=seen[1:])
    caps = []
    for player, (load, clock, fallback_w) in enumerate(zip(loads, clocks, fallbacks, strict=True)):
        level = level_of(anything(seed), row, player, load, 1e9 + clock)
        caps.append(under_fallback(level, fallback_w, 150.0, 700.0))
        assert 0.0 < caps[-1] <= fallback_w
    assert sum(caps) <= sum(fallbacks) + 1e-9


def test_a_row_without_a_limit_stays_without_caps() -> None:
    level = level_of(policy(), ROW, 1, 0.5, 0.0)
    assert under_fallback(level, 0.0, 150.0, 700.0) == 0.0


def test_its_level_is_what_the_governor_would_have_given_it() -> None:
    own, full = policy(), np.array(ROW.full_w)
    for epoch in range(8):
        for load, at in ((0.1, 0), (1.5, 2)):
            state = own.facts.state(1, (2, at, 2))
            expected = own.watts(state, epoch, full, ROW.limit_w)[1] / 700.0
            assert level_of(own, ROW, 1, load, 10.0 * epoch + 5.0).share == pytest.approx(expected)


@pytest.mark.parametrize(
    "row", [replace(ROW, classes=(0, 0)), replace(ROW, full_w=(700.0, 0.0, 700.0)), replace(ROW, headroom=7)]
)
def test_a_record_of_another_game_is_refused(row: RowPlay) -> None:
    with pytest.raises(BadPolicy):
        level_of(policy(), row, 1, 0.5, 0.0)


@pytest.mark.parametrize(
    ("busy", "speed", "kind", "waiting_s", "decodes", "load"),
    [
        (0.5, 0.8, "h100", 0.0, False, 0.4),
        (0.5, 0.8, "h100", 0.0, True, 0.5),
        (0.5, 0.6, "h100", 0.0, True, 0.4),
        (0.5, 0.8, "h100", 2.0, False, 0.6),
        (0.99, 0.5, "h100", 0.0, False, 1.0),
        (-1.0, 0.0, "h100", 0.0, False, 1.0),
        (0.5, 0.8, "unheard-of", 0.0, False, 1.0),
        (0.0, 0.0, "h100", 0.0, False, 0.0),
    ],
)
def test_its_load_is_what_it_does_and_what_waits(
    busy: float, speed: float, kind: str, waiting_s: float, decodes: bool, load: float
) -> None:
    one = DeviceReading(DEVICE, "plant", busy=busy, speed=speed, kind=kind, cap_least_w=150.0, cap_most_w=700.0)
    thermometer = DeviceReading("hwmon:k10", "hwmon")
    assert load_of([thermometer, one], waiting_s, decodes=decodes) == pytest.approx(load)
