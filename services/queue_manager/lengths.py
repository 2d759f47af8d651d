"""The length predictor beside the queue: questions go to its thread, answers come back as events, nobody waits."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from headrace.core.effects import Effect, PredictLength
from headrace.core.events import Event, LengthPredicted
from headrace.core.lengths import Prediction, of_request
from headrace.mesh.logs import get_logger
from headrace.predictor.model import Asked

log = get_logger("queue")


class Thread(Protocol):
    """headrace.predictor.service.PredictorThread, as seen from here."""

    def offer(self, asked: Asked) -> "Future[Prediction] | None": ...


class Lengths:
    """Counts what was asked and what was not: a predictor that cannot keep up, or has ended, is left out."""

    def __init__(self, thread: Thread, on_event: Callable[[Event], None]) -> None:
        self._thread = thread
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self.predicted = 0
        self.unpredicted = 0

    def take(self, effect: Effect) -> bool:
        """False: not a question for the predictor."""
        if not isinstance(effect, PredictLength):
            return False
        request = effect.request
        future = self._thread.offer(Asked(request.question, of_request(request)))
        if future is None:
            self._missed()
        else:
            future.add_done_callback(partial(self._done, request.id))
        return True

    def _done(self, request_id: str, done: "Future[Prediction]") -> None:
        """In the predictor's thread; after the end of the process's loop nobody asks any more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._answer, request_id, done)

    def _answer(self, request_id: str, done: "Future[Prediction]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._missed()
            return
        self.predicted += 1
        self._on_event(LengthPredicted(request_id, done.result().values))

    def _missed(self) -> None:
        self.unpredicted += 1
        if self.unpredicted & (self.unpredicted - 1) == 0:  # the first, and then ever more rarely
            log.warning("lengths_not_predicted", requests=self.unpredicted, predicted=self.predicted)
