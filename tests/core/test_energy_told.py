"""Joules along a request's way: the queue manager keeps what workers tell, also of attempts that are lost."""

import pytest

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.types import Failure, Key, Prompt, StageSpan, TensorHandle
from headrace.core.usage import usage_of
from tests.core.queue_world import make_request

NOW_S = 1000.0
PREFILL = StageSpan("prefill", NOW_S, NOW_S + 1, "p", joules=40.0)
DECODE = StageSpan("decode", NOW_S + 1, NOW_S + 2, "d", joules=15.0)
KV = TensorHandle("kv", "p", "p-1", "", "here", "127.0.0.1:1", "uint8", (8,), "", 8, 1, 4)


def dispatched() -> tuple[QueueCore, Key]:
    core = QueueCore(QueueConfig(epoch=3, stage_failures_max=2))
    core.handle(ev.CaughtUp(), NOW_S)
    for name, stage in (("p", "prefill"), ("d", "decode")):
        beat = ev.Heartbeat(name, f"{name}-1", (stage,), "m", slots=16, blocks=1024, block_tokens=16)
        core.handle(beat, NOW_S)
    done = core.handle(ev.RequestAccepted(make_request(0, NOW_S), 1), NOW_S)
    sent = [effect for effect in done if isinstance(effect, fx.SendPrefill)]
    return core, sent[0].command.key


def failed(core: QueueCore, key: Key, worker: str, *timeline: StageSpan) -> list[fx.Effect]:
    event = ev.StageFailed(worker, key, Failure("stage_error", "broken"), retryable=True, timeline=timeline)
    return core.handle(event, NOW_S + 2)


def spent(core: QueueCore, key: Key) -> list[StageSpan]:
    return [span for span in core._cell.jobs[key.request_id].timeline if span.joules]


def test_an_attempt_that_failed_was_paid_for() -> None:
    core, key = dispatched()
    core.handle(ev.Prefilled("p", key, 1, KV, (PREFILL,)), NOW_S + 1)
    failed(core, key, "d", PREFILL, DECODE)
    assert spent(core, key) == [PREFILL, DECODE], "what is told twice counts once"


def test_what_is_told_too_late_was_paid_for() -> None:
    """The decode worker says that it has begun before the prefill worker says that it is done; then it dies."""
    core, key = dispatched()
    core.handle(ev.Joined("d", key), NOW_S + 1)
    core.handle(ev.Prefilled("p", key, 1, KV, (PREFILL,)), NOW_S + 1)
    failed(core, key, "d", DECODE)
    assert spent(core, key) == [PREFILL, DECODE]


def test_an_eviction_that_a_heartbeat_told_first_was_paid_for() -> None:
    core, key = dispatched()
    core.handle(ev.Joined("d", key), NOW_S + 1)
    core.handle(ev.Evicted("d", key, 3, KV), NOW_S + 2)
    core.handle(ev.Evicted("d", key, 3, KV, (PREFILL, DECODE)), NOW_S + 2)
    assert spent(core, key) == [PREFILL, DECODE]


def test_an_end_that_no_worker_announces_tells_what_was_spent() -> None:
    core, key = dispatched()
    done = core.handle(
        ev.StageFailed("p", key, Failure("invalid_input", "wrong"), retryable=False, timeline=(PREFILL,)), NOW_S + 1
    )
    ends = [effect.end for effect in done if isinstance(effect, fx.GatewayEnded)]
    assert [end.usage.joules for end in ends] == [40.0]


def test_a_stranger_adds_nothing() -> None:
    core, key = dispatched()
    failed(core, Key(key.request_id, key.attempt + 1), "p", PREFILL)
    assert spent(core, key) == []


def test_usage_sums_up_the_timeline() -> None:
    assert usage_of(Prompt((1, 2)), 0, 3, timeline=(PREFILL, DECODE)).joules == pytest.approx(55.0)
    assert usage_of(Prompt((1, 2)), 0, 3).joules == 0.0
