"""The predictor beside the queue: answers become events, a full or broken one is left out, nobody waits."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from headrace.core.effects import DeleteRecord, PredictLength
from headrace.core.events import Event, LengthPredicted
from headrace.core.lengths import LEVELS, Prediction
from headrace.predictor.model import Asked
from headrace.predictor.service import PredictorThread
from services.queue_manager.lengths import Lengths
from tests.queue_manager.cellmates import make_request


class Words:
    """A model of its own: as many tokens as the question has words. It may be held, and it may break."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def predict(self, asked: Sequence[Asked]) -> list[Prediction]:
        self.go.wait(10)
        assert all(one.text != "break" for one in asked)
        return [Prediction.exactly(len(one.text.split()), one.features.max_tokens) for one in asked]


class Told:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.came = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.came.set()


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def thread(words: Words) -> Iterator[PredictorThread]:
    running = PredictorThread(lambda: words, waiting_most=2)
    yield running
    words.go.set()
    running.close()


def question(number: int, text: str) -> PredictLength:
    return PredictLength(make_request(number, question=text))


async def test_an_answer_becomes_an_event(thread: PredictorThread) -> None:
    told = Told()
    lengths = Lengths(thread, told)
    assert lengths.take(question(1, "how many words"))
    await asyncio.wait_for(told.came.wait(), 10)
    assert told.events == [LengthPredicted(f"{1:032x}", (3.0,) * len(LEVELS))]
    assert lengths.predicted == 1
    assert not lengths.take(DeleteRecord("r", 1)), "others carry that out"


async def test_what_it_cannot_keep_up_with_is_not_predicted(thread: PredictorThread, words: Words) -> None:
    told = Told()
    lengths = Lengths(thread, told)
    words.go.clear()
    for number in range(8):
        assert lengths.take(question(number, "one two"))
    assert lengths.unpredicted >= 4, "at most two run, as one batch, and two wait"
    words.go.set()
    await asyncio.wait_for(told.came.wait(), 10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_broken_predictor_is_left_out(thread: PredictorThread) -> None:
    told = Told()
    lengths = Lengths(thread, told)
    lengths.take(question(1, "break"))
    for _ in range(500):
        await asyncio.sleep(0.02)
        if lengths.unpredicted:
            break
    lengths.take(question(2, "and then"))
    assert lengths.unpredicted == 2
    assert told.events == []
