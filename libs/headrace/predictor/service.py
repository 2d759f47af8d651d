"""The proxy model in a thread of its own: prompts go in, futures come out, and nobody has to wait for them.

What arrives while a batch runs is the next batch, so a lone prompt is answered at once and a crowd shares the work.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from headrace.core.lengths import Prediction
from headrace.predictor.model import Asked


class Model(Protocol):
    def predict(self, asked: Sequence[Asked]) -> list[Prediction]: ...


class PredictorThread:
    """Start it once; close it at the end. If the model fails, its thread ends with the traceback, what waits is
    cancelled, and offers are refused from then on: requests go on without predictions.

    At most `waiting_most` prompts wait: at 10 ms each the last would be predicted after its answer has begun.
    """

    def __init__(self, model: Model, *, waiting_most: int = 256, batch_most: int = 16) -> None:
        if waiting_most < 1 or batch_most < 1:
            raise ValueError("waiting_most and batch_most are at least 1")
        self._model, self._waiting_most, self._batch_most = model, waiting_most, batch_most
        self._waiting: deque[tuple[Asked, Future[Prediction]]] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="length-predictor", daemon=True)
        self._thread.start()

    def offer(self, asked: Asked) -> "Future[Prediction] | None":
        """The prediction to come; None if too many wait or the thread has ended. A future may be cancelled."""
        with self._changed:
            if not self._open or len(self._waiting) >= self._waiting_most:
                return None
            future: Future[Prediction] = Future()
            self._waiting.append((asked, future))
            self._changed.notify()
            return future

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def close(self, timeout_s: float = 10.0) -> None:
        """What waits is cancelled; the batch that runs is finished."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._answer(batch)
        finally:
            with self._changed:
                self._open = False
                for _, future in self._waiting:
                    future.cancel()
                self._waiting.clear()

    def _next(self) -> list[tuple[Asked, "Future[Prediction]"]]:
        """The first in line, as many as a batch takes; waits for one. Empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            if not self._open:
                return []
            count = min(len(self._waiting), self._batch_most)
            return [self._waiting.popleft() for _ in range(count)]

    def _answer(self, batch: list[tuple[Asked, "Future[Prediction]"]]) -> None:
        wanted = [(asked, future) for asked, future in batch if future.set_running_or_notify_cancel()]
        answered = 0
        try:
            for (_, future), prediction in zip(wanted, self._model.predict([a for a, _ in wanted]), strict=True):
                future.set_result(prediction)
                answered += 1
        finally:
            for _, future in wanted[answered:]:
                future.set_exception(PredictorFailed("the length predictor's thread ended"))


class PredictorFailed(RuntimeError):
    """No prediction will come; the thread's own traceback says why."""
