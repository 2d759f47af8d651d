"""The predictor's thread: batches form while one runs, too many are refused, and it ends without leaving waiters."""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future

import pytest

from headrace.core.lengths import Features, Prediction
from headrace.predictor.model import Asked
from headrace.predictor.service import PredictorFailed, PredictorThread

TIMEOUT_S = 10.0


def asked(tokens: int) -> Asked:
    return Asked("x" * tokens, Features(prompt_tokens=tokens, max_tokens=1_000))


class Held:
    """A model that answers with the text's length when it is told to go on."""

    def __init__(self) -> None:
        self.began, self.go_on, self.batches = threading.Semaphore(0), threading.Semaphore(0), list[int]()

    def predict(self, asked: Sequence[Asked]) -> list[Prediction]:
        self.batches.append(len(asked))
        self.began.release()
        assert self.go_on.acquire(timeout=TIMEOUT_S)
        return [Prediction.exactly(len(one.text)) for one in asked]


class Broken:
    def predict(self, asked: Sequence[Asked]) -> list[Prediction]:
        raise MemoryError("no more")


def offered(thread: PredictorThread, tokens: int) -> "Future[Prediction]":
    future = thread.offer(asked(tokens))
    assert future is not None
    return future


def test_what_arrives_while_a_batch_runs_is_the_next_batch() -> None:
    model = Held()
    thread = PredictorThread(model, batch_most=4)
    first = offered(thread, 1)
    assert model.began.acquire(timeout=TIMEOUT_S)
    rest = [offered(thread, n) for n in range(2, 8)]
    for _ in range(3):
        model.go_on.release()
    found = [future.result(TIMEOUT_S).mean for future in (first, *rest)]
    thread.close()
    assert found == pytest.approx([1, 2, 3, 4, 5, 6, 7])
    assert model.batches == [1, 4, 2]


def test_a_full_queue_refuses_and_a_closed_one_cancels() -> None:
    model = Held()
    thread = PredictorThread(model, waiting_most=2)
    running = offered(thread, 1)
    assert model.began.acquire(timeout=TIMEOUT_S)
    waiting = [offered(thread, 2), offered(thread, 3)]
    assert thread.offer(asked(4)) is None
    assert thread.waiting == 2
    closer = threading.Thread(target=thread.close)
    closer.start()
    model.go_on.release()
    closer.join(TIMEOUT_S)
    assert running.result(TIMEOUT_S).mean == pytest.approx(1)
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(TIMEOUT_S)
    assert thread.offer(asked(5)) is None


def test_who_no_longer_wants_an_answer_is_left_out() -> None:
    model = Held()
    thread = PredictorThread(model)
    offered(thread, 1)
    assert model.began.acquire(timeout=TIMEOUT_S)
    gone, wanted = offered(thread, 2), offered(thread, 3)
    assert gone.cancel()
    model.go_on.release()
    model.go_on.release()
    assert wanted.result(TIMEOUT_S).mean == pytest.approx(3)
    thread.close()
    assert model.batches == [1, 1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_model_that_fails_ends_the_thread_and_nobody_waits_for_ever() -> None:
    thread = PredictorThread(Broken())
    with pytest.raises(PredictorFailed):
        offered(thread, 1).result(TIMEOUT_S)
    thread.close()
    assert thread.offer(asked(2)) is None


@pytest.mark.parametrize("bad", [{"waiting_most": 0}, {"batch_most": 0}])
def test_bounds_that_admit_nobody_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PredictorThread(Broken(), **bad)
