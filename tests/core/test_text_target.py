"""The text target of a request, chosen late and by pending tokens (ModServe, arXiv 2502.00937, "Routing"): total tokens
where media join the sequence, text tokens where they stand beside it.
"""

from dataclasses import replace

import pytest

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.types import MediaSpan, Prompt, TensorHandle
from tests.core.queue_world import make_request

NOW_S = 1000.0
ROWS = 160  # of the one image


def started(planner: str, *stages: str) -> QueueCore:
    core = QueueCore(QueueConfig(epoch=1, planner=planner))
    core.handle(ev.CaughtUp(), NOW_S)
    core.handle(ev.Heartbeat("e", "e-1", ("encode",), "m", slots=4, modalities=("image",)), NOW_S)
    for name in ("a", "b"):
        core.handle(ev.Heartbeat(name, f"{name}-1", stages, "m", slots=8, blocks=512, block_tokens=16), NOW_S)
    if "decode" not in stages:
        core.handle(ev.Heartbeat("d", "d-1", ("decode",), "m", slots=32, blocks=4096, block_tokens=16), NOW_S)
    return core


def ask(core: QueueCore, number: int, text: int, contract: str = "") -> list[fx.Effect]:
    """contract: of its image; without, it has none."""
    request = make_request(number, NOW_S, images=1 if contract else 0)
    if contract == "decoder":
        prompt = Prompt(tuple(range(text + ROWS)), (MediaSpan(0, 0, ROWS),))
    elif contract == "cross":
        prompt = Prompt(tuple(range(text + 1)), (MediaSpan(0, 0, 1, rows=ROWS, kv_tokens=ROWS),))
    else:
        prompt = Prompt(tuple(range(text)))
    return core.handle(ev.RequestAccepted(replace(request, prompt=prompt), number), NOW_S)


def encoded(core: QueueCore, sent: list[fx.Effect]) -> list[fx.Effect]:
    (key,) = [effect.command.key for effect in sent if isinstance(effect, fx.SendEncode)]
    made = TensorHandle("t", "e", "e-1", "", "h", "", "f4", (1,), "", 4, 0, 1)
    return core.handle(ev.PartEncoded("e", key, 0, made), NOW_S)


def target(done: list[fx.Effect]) -> str:
    (worker,) = [effect.worker for effect in done if isinstance(effect, fx.SendPrefill)]
    return worker


@pytest.mark.parametrize("planner", ["", "headrace"])
@pytest.mark.parametrize("stages", [("prefill", "decode"), ("prefill",)])
@pytest.mark.parametrize(("contract", "third"), [("decoder", "a"), ("cross", "b")])
def test_pending_tokens_decide_and_what_counts_is_the_contracts(
    planner: str, stages: tuple[str, ...], contract: str, third: str
) -> None:
    """40 of text at a; 10 of text and an image at b: whoever comes then goes to a, unless the image stands beside."""
    core = started(planner, *stages)
    assert target(ask(core, 1, 40)) == "a"
    assert target(encoded(core, ask(core, 2, 10, contract))) == "b"
    assert target(ask(core, 3, 5)) == third


@pytest.mark.parametrize("planner", ["", "headrace"])
def test_the_target_is_chosen_when_the_last_part_is_encoded(planner: str) -> None:
    """While it is encoded, text comes: what was the emptier one at its arrival is not any more."""
    core = started(planner, "prefill", "decode")
    assert target(ask(core, 1, 40)) == "a"
    sent = ask(core, 2, 10, "decoder")
    assert not [effect for effect in sent if isinstance(effect, fx.SendPrefill)], "b would be the emptier one now"
    assert target(ask(core, 3, 200)) == "b"
    assert target(encoded(core, sent)) == "a"
