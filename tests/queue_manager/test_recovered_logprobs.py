"""Which keeper of a lost attempt's log-probabilities is believed: both, each for what it has."""

from headrace.core.effects import Orphan
from headrace.core.types import End, Key, Logprobs, TokenLogprobs
from headrace.mesh.token_log import Logged
from headrace.v1 import queue_pb2
from headrace.wire.convert import end_to_proto, logprobs_to_proto
from services.queue_manager.recovery import _longest

ORPHAN = Orphan(Key("r1", 2), "gw")


def told(*indexes: int) -> Logprobs:
    return tuple((index, TokenLogprobs(-index / 8)) for index in indexes)


def shown(tokens: list[int], logprobs: Logprobs, end: End | None = None) -> dict[str, queue_pb2.HeldTokens]:
    message = queue_pb2.HeldTokens(request_id="r1", known=True, tokens=tokens, logprobs=logprobs_to_proto(logprobs))
    if end is not None:
        message.end.CopyFrom(end_to_proto(end))
    return {"r1": message}


def test_the_log_and_the_gateway_add_up() -> None:
    """Redis lost the beginning's, the gateway's reply had no room for the rest."""
    found = _longest(ORPHAN, {"r1": Logged((5, 6, 7), told(1, 2))}, shown([5, 6], told(0)))
    assert (found.tokens, found.logprobs) == ((5, 6, 7), told(0, 1, 2))


def test_none_is_told_of_a_token_that_is_not_there() -> None:
    found = _longest(ORPHAN, {"r1": Logged((5, 6, 7), told(0, 1, 2))}, shown([5], told(0), End("stop")))
    assert (found.tokens, found.end, found.logprobs) == ((5,), End("stop"), told(0))


def test_without_a_gateway_the_log_is_all() -> None:
    found = _longest(ORPHAN, {"r1": Logged((5, 6), told(1))}, {})
    assert (found.tokens, found.logprobs) == ((5, 6), told(1))
