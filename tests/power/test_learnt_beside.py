"""A learnt controller in the governor: it is compared, it may only slow down, and what fails is switched off."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from headrace.client import operator
from headrace.control.thermal.network import Trained
from headrace.core.errors import Unavailable
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BadSetup
from headrace.v1 import governor_pb2
from services.governor.beside import LATE_MOST, MINUTE, Beside
from services.governor.heat import Heat
from services.governor.options import Options
from services.governor.roll import Roll
from services.governor.rows import one_row
from tests.power.test_governor_live import Workers, cell, scraped, show, started
from tests.power.test_governor_parts import gpu, heard, telemetry

TRAINED = Trained(-0.03, 0.7, 1.0)


def hot(worker: str) -> governor_pb2.Telemetry:
    return telemetry(worker, gpu(full_w=700.0, busy=1.0, speed=1.0, power_w=690.0, temp_c=80.0))


class Says:
    """A network that says one thing, after a while, or fails."""

    def __init__(self, speed: float, after_s: float = 0.0, fails: str = "") -> None:
        self.trained = TRAINED
        self.speed, self.after_s, self.fails = speed, after_s, fails
        self.rows: list[int] = []

    def speeds(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        self.rows.append(len(observations))
        time.sleep(self.after_s)
        if self.fails:
            raise Unavailable(self.fails)
        return np.full(len(observations), self.speed)


def followed(beside: Beside | None, seconds: int, workers: int = 2) -> Heat:
    """Hot GPUs for some seconds."""
    roll, heat = Roll(one_row()), Heat("kalman", beside)
    fleet, seen = roll.read(heard(*(hot(f"w-{at}") for at in range(workers))), 0.0)
    for _ in range(seconds):
        heat.follow(fleet, roll.told, seen)
    return heat


def test_shadow_changes_nothing_and_counts() -> None:
    beside = Beside("shadow", "scratch", Says(0.8))
    heat, alone = followed(beside, 40), followed(None, 40)
    assert heat.speed.tolist() == alone.speed.tolist()
    assert beside.all.seconds == 2 * 40
    assert beside.all.worst == pytest.approx(0.2, abs=0.02), "at first all are cool enough for full speed"
    assert beside.all.worst_at == "w-0/plant:0"
    assert beside.entries() == [], "a minute has not passed"


@pytest.mark.parametrize(
    ("said", "speed"),
    [(0.75, 0.75), (2.0, None), (0.99, None), (float("nan"), None), (float("inf"), None), (0.1, None)],
)
def test_who_acts_slows_down_and_never_speeds_up(said: float, speed: float | None) -> None:
    beside = Beside("act", "scratch", Says(said))
    heat, alone = followed(beside, 40), followed(None, 40)
    assert alone.speed[0] < 0.98
    assert heat.speed.tolist() == pytest.approx([speed] * 2 if speed else alone.speed.tolist())
    believed = 0.65 <= said <= 1.05
    assert beside.all.distrusted == (0 if believed else 2 * 40)


def test_a_minute_far_apart_is_one_line_and_so_is_one_of_nonsense() -> None:
    beside = Beside("shadow", "scratch", Says(0.75))
    followed(beside, 2 * MINUTE)
    first, second = beside.entries()
    assert (first.action, first.subject) == ("learnt", "shadow/scratch")
    assert first.reason.startswith("a minute's mean difference from the safe speed")
    assert 0.05 < first.after < 0.3
    assert "w-" in second.reason
    beside = Beside("shadow", "scratch", Says(float("nan")))
    followed(beside, MINUTE)
    (entry,) = beside.entries()
    assert entry.after == 2 * MINUTE
    assert "not believed" in entry.reason
    beside = Beside("shadow", "scratch", Says(0.97))
    followed(beside, MINUTE)
    assert beside.entries() == [], "near enough"


def test_who_is_late_is_left_alone_and_then_switched_off() -> None:
    beside = Beside("act", "language", Says(0.75, after_s=0.6), wait_s=0.01)
    alone = followed(None, 1)
    took_s = []
    roll, heat = Roll(one_row()), Heat("kalman", beside)
    fleet, seen = roll.read(heard(*(hot(f"w-{at}") for at in range(2))), 0.0)
    for second in range(LATE_MOST + 2):
        began_s = time.perf_counter()
        heat.follow(fleet, roll.told, seen)
        took_s.append(time.perf_counter() - began_s)
        assert beside.running == (second + 1 < LATE_MOST)
        if second == 0:
            assert heat.speed.tolist() == alone.speed.tolist()
    assert max(took_s) < 0.45, "it waits for a bounded time, not for the answer"
    assert beside.late == LATE_MOST
    (entry,) = beside.entries()
    assert entry.reason.startswith("switched off, the safe controller is alone: later than 10 ms")
    beside.close()


def test_a_network_that_fails_is_switched_off() -> None:
    network = Says(0.75, fails="no such operator")
    beside = Beside("act", "scratch", network)
    heat, alone = followed(beside, 40), followed(None, 40)
    assert heat.speed.tolist() == alone.speed.tolist()
    assert len(network.rows) == 1
    (entry,) = beside.entries()
    assert "no such operator" in entry.reason
    missing = Beside.load("shadow", "no-such-network")
    assert not missing.running
    assert "make controllers" in missing.entries()[0].reason


def test_devices_come_and_go() -> None:
    network = Says(0.75)
    beside = Beside("act", "scratch", network)
    roll, heat = Roll(one_row()), Heat("kalman", beside)
    history = heard(hot("w-0"))
    heat.follow(roll.read(history, 0.0)[0], roll.told, roll.read(history, 0.0)[1])
    for name in ("v-0", "x-0"):
        history.on_telemetry(hot(name), 0.0)
    fleet, seen = roll.read(history, 0.0)
    heat.follow(fleet, roll.told, seen)
    assert network.rows == [1, 3]
    assert beside.all.seconds == 1 + 3
    only = heard(hot("x-0"))
    fleet, seen = roll.read(only, 0.0)
    heat.follow(fleet, roll.told, seen)
    assert network.rows[-1] == 2, "its cohort's other is still in the context"
    assert beside.all.seconds == 5, "and in no figure"
    assert heat.speed.tolist() == pytest.approx([0.75])
    heat.follow(Roll(one_row()).read(heard(), 0.0)[0], [], seen)
    assert network.rows[-1] == 2, "nobody is there, nobody is asked"


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"HEADRACE_THERMAL_LEARNT": "on"}, "HEADRACE_THERMAL_LEARNT"),
        ({"HEADRACE_THERMAL_NETWORK": "gpt"}, "HEADRACE_THERMAL_NETWORK"),
        ({"HEADRACE_THERMAL_LEARNT": "act", "HEADRACE_THERMAL": "pid"}, "only below HEADRACE_THERMAL=kalman-quick"),
    ],
)
def test_settings_are_refused_by_name(env: dict[str, str], word: str) -> None:
    with pytest.raises(BadSetup, match=word):
        Options.from_env(env)


def test_it_is_off_unless_asked_for() -> None:
    assert (Options.from_env({}).learnt, Options.from_env({}).network) == ("off", "distilled")


@pytest.fixture
async def workers(nats_url: str) -> AsyncIterator[Workers]:
    bus = await Bus.connect(nats_url, "workers")
    made = Workers(bus)
    await made.listen()
    yield made
    await bus.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["shadow", "act"])
async def test_in_the_live_governor(workers: Workers, nats_url: str, redis_url: str, mode: str) -> None:
    env = {"HEADRACE_THERMAL_LEARNT": mode, "HEADRACE_THERMAL_NETWORK": "scratch", "HEADRACE_ROW_BUDGET_W": "1400"}
    async with cell(workers, nats_url, redis_url, f"learnt-{mode}", **env) as made:
        await made.seconds(8)
        beside = made.governing.beside
        assert beside is not None
        assert beside.running
        assert beside.all.seconds + 3 * beside.late >= 3 * 6
        assert beside.all.seconds > 0
        assert beside.all.distrusted == 0
        assert np.minimum(workers.world.cap_w, 700.0).sum() <= 1_400.0
        made.governing.close()


@pytest.mark.timeout(60)
async def test_operators_see_it(
    workers: Workers, nats_url: str, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = tmp_path / "audit.jsonl"
    env = {"HEADRACE_CELL": "learnt", "HEADRACE_THERMAL_LEARNT": "shadow", "HEADRACE_AUDIT_FILE": str(audit)}
    async with started(nats_url, redis_url, **env) as (address, facts):
        await workers.run(lambda: len(workers.batches) >= 2)
        told = (await operator.governor_state(address)).learnt
        assert (told.mode, told.network, told.running, told.trouble) == ("shadow", "distilled", True, "")
        assert told.device_seconds >= 3
        text = await asyncio.to_thread(scraped, facts["metrics_port"])
        assert 'headrace_learnt_running{mode="shadow",network="distilled"} 1.0' in text
        assert 'headrace_learnt_apart_total{mode="shadow",network="distilled"}' in text
        show(address, tmp_path, "status")
        assert "learnt thermal controller: distilled, shadow" in capsys.readouterr().out
    for line in audit.read_text().splitlines():
        assert json.loads(line)["action"] != "learnt", "it agrees, or a minute has not passed"
