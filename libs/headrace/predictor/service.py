"""The proxy model in a thread of its own: prompts go in, futures come out, and nobody has to wait for them.

What arrives while a batch runs is the next batch, so a lone prompt is answered at once and a crowd shares the work.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Protocol

from headrace.core.errors import HeadraceError
from headrace.core.lengths import Prediction
from headrace.predictor.model import Asked


class Model(Protocol):
    def predict(self, asked: Sequence[Asked]) -> list[Prediction]: ...


def cpu_share() -> float:
    """An eighth of the machine, at most one core: under load the predictor must not take what serving needs."""
    return min(1.0, len(os.sched_getaffinity(0)) / 8)


class PredictorThread:
    """Start it once; close it at the end. The model is loaded in the thread; `ready` says when it is there, or why not.
    If it fails later, the thread ends with the traceback. Either way what waits is cancelled, and offers are refused
    from then on: requests go on without predictions.

    At most `waiting_most` prompts wait: at 10 ms each the last would be predicted after its answer has begun. Between
    batches it rests so long that it runs for `share` of the time.
    """

    def __init__(
        self, load: Callable[[], Model], *, waiting_most: int = 256, batch_most: int = 16, share: float = 1.0
    ) -> None:
        if waiting_most < 1 or batch_most < 1:
            raise ValueError("waiting_most and batch_most are at least 1")
        if not 0.0 < share <= 1.0:
            raise ValueError("share is more than 0 and at most 1")
        self.ready: Future[None] = Future()
        self.ready.set_running_or_notify_cancel()  # nobody can cancel it
        self._load, self._waiting_most, self._batch_most, self._share = load, waiting_most, batch_most, share
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
            model = self._loaded()
            while model is not None and (batch := self._next()):
                began_s = monotonic()
                self._answer(model, batch)
                self._rest((monotonic() - began_s) * (1.0 / self._share - 1.0))
        finally:
            if not self.ready.done():
                self.ready.set_exception(PredictorFailed("the length predictor could not be loaded"))
            with self._changed:
                self._open = False
                for _, future in self._waiting:
                    future.cancel()
                self._waiting.clear()

    def _loaded(self) -> Model | None:
        """None: it cannot be; whoever asks `ready` is told why."""
        try:
            model = self._load()
        except (HeadraceError, ValueError, OSError, ImportError) as error:
            self.ready.set_exception(error)
            return None
        self.ready.set_result(None)
        return model

    def _rest(self, rest_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._open, rest_s)

    def _next(self) -> list[tuple[Asked, "Future[Prediction]"]]:
        """The first in line, as many as a batch takes; waits for one. Empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            if not self._open:
                return []
            count = min(len(self._waiting), self._batch_most)
            return [self._waiting.popleft() for _ in range(count)]

    def _answer(self, model: Model, batch: list[tuple[Asked, "Future[Prediction]"]]) -> None:
        wanted = [(asked, future) for asked, future in batch if future.set_running_or_notify_cancel()]
        answered = 0
        try:
            for (_, future), prediction in zip(wanted, model.predict([a for a, _ in wanted]), strict=True):
                future.set_result(prediction)
                answered += 1
        finally:
            for _, future in wanted[answered:]:
                future.set_exception(PredictorFailed("the length predictor's thread ended"))


class PredictorFailed(RuntimeError):
    """No prediction will come; the thread's own traceback says why."""
