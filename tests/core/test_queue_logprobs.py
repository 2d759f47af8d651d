"""The queue manager's core and log-probabilities: those of emitted tokens are replayed, those of the end stored."""

from dataclasses import replace

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.types import End, Logprobs, TokenLogprobs
from tests.core.queue_world import make_request

NOW_S = 1000.0
WORKER = ev.Heartbeat("w", "w-1", ("prefill", "decode"), "m", slots=16, blocks=1024, block_tokens=16)


def told(*indexes: int) -> Logprobs:
    return tuple((index, TokenLogprobs(-index / 8, ((index, -index / 8),))) for index in indexes)


def bereaved() -> tuple[QueueCore, fx.Orphan]:
    """One request at a worker that has just died."""
    core = QueueCore(QueueConfig(epoch=3))
    for event in (ev.CaughtUp(), WORKER, ev.RequestAccepted(make_request(1, NOW_S), 1)):
        core.handle(event, NOW_S)
    done = core.handle(replace(WORKER, incarnation="w-2"), NOW_S + 1)
    (recover,) = [effect for effect in done if isinstance(effect, fx.RecoverTokens)]
    return core, recover.orphans[0]


def test_a_new_attempt_is_sent_what_is_known_of_the_tokens_it_replays() -> None:
    core, orphan = bereaved()
    recovered = ev.Recovered(orphan.key, (7, 8, 9), logprobs=told(0, 2))
    done = core.handle(ev.TokensRecovered((recovered,)), NOW_S + 1)
    (sent,) = [effect.command for effect in done if isinstance(effect, fx.SendPrefill)]
    assert (sent.emitted, sent.emitted_logprobs) == ((7, 8, 9), told(0, 2))


def test_what_was_known_once_is_not_forgotten_by_the_next_recovery() -> None:
    core, orphan = bereaved()
    core.handle(ev.TokensRecovered((ev.Recovered(orphan.key, (7, 8), logprobs=told(0, 1)),)), NOW_S + 1)
    done = core.handle(replace(WORKER, incarnation="w-3"), NOW_S + 2)
    (recover,) = [effect for effect in done if isinstance(effect, fx.RecoverTokens)]
    poorer = ev.Recovered(recover.orphans[0].key, (7, 8, 9), logprobs=told(2))
    done = core.handle(ev.TokensRecovered((poorer,)), NOW_S + 2)
    (sent,) = [effect.command for effect in done if isinstance(effect, fx.SendPrefill)]
    assert (sent.emitted, sent.emitted_logprobs) == ((7, 8, 9), told(0, 1, 2))


def test_results_hold_those_of_the_end_whoever_told_it() -> None:
    core, orphan = bereaved()
    end = ev.Recovered(orphan.key, (7, 8), End("stop"), told(0, 1))
    by_gateway = core.handle(ev.TokensRecovered((end,)), NOW_S + 1)
    core, orphan = bereaved()
    core.handle(ev.TokensRecovered((ev.Recovered(orphan.key),)), NOW_S + 1)
    by_worker = core.handle(ev.Ended("w", orphan.key, End("stop"), (7, 8), told(0, 1)), NOW_S + 2)
    for done in (by_gateway, by_worker):
        (stored,) = [effect for effect in done if isinstance(effect, fx.StoreResult)]
        assert (stored.tokens, stored.logprobs) == ((7, 8), told(0, 1))
