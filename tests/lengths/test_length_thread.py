"""The predictor's thread: batches form while one runs, too many are refused, and it ends without leaving waiters."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from headrace.core.errors import Unavailable
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
    thread = PredictorThread(lambda: model, batch_most=4)
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
    thread = PredictorThread(lambda: model, waiting_most=2)
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
    thread = PredictorThread(lambda: model)
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
    thread = PredictorThread(Broken)
    with pytest.raises(PredictorFailed):
        offered(thread, 1).result(TIMEOUT_S)
    thread.close()
    assert thread.offer(asked(2)) is None


def test_what_is_asked_while_the_model_loads_is_answered_once_it_is_there() -> None:
    model, loading = Held(), threading.Event()

    def load() -> Held:
        assert loading.wait(TIMEOUT_S)
        return model

    thread = PredictorThread(load)
    early = [offered(thread, n) for n in (1, 2, 3)]
    assert not thread.ready.done()
    loading.set()
    thread.ready.result(TIMEOUT_S)
    model.go_on.release()
    assert [future.result(TIMEOUT_S).mean for future in early] == pytest.approx([1, 2, 3])
    thread.close()
    assert model.batches == [3]


def test_a_model_that_cannot_be_loaded_says_why_and_nobody_waits() -> None:
    loading = threading.Event()

    def load() -> Held:
        assert loading.wait(TIMEOUT_S)
        raise Unavailable("no heads")

    thread = PredictorThread(load)
    early = offered(thread, 1)
    loading.set()
    with pytest.raises(Unavailable, match="no heads"):
        thread.ready.result(TIMEOUT_S)
    with pytest.raises(CancelledError):
        early.result(TIMEOUT_S)
    thread.close()
    assert thread.offer(asked(2)) is None


class Slow:
    """Every batch takes so long."""

    batch_s = 0.02

    def predict(self, asked: Sequence[Asked]) -> list[Prediction]:
        time.sleep(self.batch_s)
        return [Prediction.exactly(1) for _ in asked]


def test_it_rests_between_batches() -> None:
    model = Slow()
    thread = PredictorThread(lambda: model, batch_most=1, share=0.25)
    thread.ready.result(TIMEOUT_S)
    began_s = time.monotonic()
    futures = [offered(thread, n) for n in range(1, 6)]
    for future in futures:
        future.result(TIMEOUT_S)
    took_s = time.monotonic() - began_s
    thread.close()
    assert took_s >= 4 * 4 * model.batch_s, "four rests of three times a batch, and five batches"


@pytest.mark.parametrize("bad", [{"waiting_most": 0}, {"batch_most": 0}, {"share": 0.0}, {"share": 1.5}])
def test_bounds_that_admit_nobody_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|at most 1"):
        PredictorThread(Broken, **bad)
