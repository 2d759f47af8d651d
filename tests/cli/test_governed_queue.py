"""What the governor asks for, as `headrace queue` shows it."""

import pytest

from headrace.cli.queue import _governed
from headrace.core.governing import Governance, Speeds
from headrace.v1.queue_pb2 import VirtualQueueStatus
from headrace.wire.inspection import inspection_to_proto
from tests.core.test_governed import say, world_of


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (Governance("w0"), ""),
        (
            Governance("w0", speeds=Speeds(0.7, 0.95)),
            "; governed: prefill at 70%, decode at 95% of full speed",
        ),
        (Governance("w0", 0.0, 0.5), "; governed: 2 slots may be used, weight 0"),
    ],
)
def test_a_governed_queue_says_so(said: Governance, shown: str) -> None:
    world = world_of(slots=4)
    say(world, said)
    queue = inspection_to_proto(world.core.inspect(world.now_s), 1, "qm-0").queues[0]
    assert _governed(queue) == shown


def test_of_an_older_queue_manager_nothing_is_said() -> None:
    assert _governed(VirtualQueueStatus(worker="w0", slots=4)) == ""
