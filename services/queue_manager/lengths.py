"""The length predictor beside the queue: questions go to its thread, answers come back as events, nobody waits."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from functools import partial
from typing import Protocol

from headrace.core.effects import Effect, PredictLength
from headrace.core.errors import Unavailable
from headrace.core.events import Event, LengthPredicted
from headrace.core.lengths import Prediction, of_request
from headrace.mesh.logs import get_logger
from headrace.predictor.model import Asked, Proxy, lacking
from headrace.predictor.service import PredictorThread, cpu_share

log = get_logger("queue")


async def start_predictor(word: str, stack: AsyncExitStack) -> PredictorThread | None:
    """The shipped predictor, if the word is not "off". "auto" goes without what is not installed, and loads beside the
    queue, which serves until then; "on" waits for it.

    Raises:
        Unavailable: on, and a package or the heads are missing.
        HeadsMismatch: on, and the heads are of another version.
    """
    if word == "off":
        return None
    why = lacking()
    if why and word == "on":
        raise Unavailable(why)
    if why:
        log.info("lengths_from_history_alone", why=why)
        return None
    thread = PredictorThread(Proxy, share=cpu_share())
    stack.callback(thread.close)
    if word == "on":
        await asyncio.wrap_future(thread.ready)
    else:
        thread.ready.add_done_callback(_loaded)
    return thread


def _loaded(ready: "Future[None]") -> None:
    if (error := ready.exception()) is not None:
        log.warning("length_predictor_not_loaded", error=str(error))


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
