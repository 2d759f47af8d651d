"""Several answers to one question in one response: their news as it comes, their usage as one."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, TypeVar

from headrace.core.errors import HeadraceError
from headrace.core.types import Usage
from services.gateway import render
from services.gateway.live import Listener, Live
from services.gateway.readings import Reading

CHOICES_MAX = 8


def together(usages: Sequence[Usage], answers: int) -> Usage:
    """Each question counts once, as OpenAI has it; all answers count, and what was spent on them.

    answers: to each question; those to one stand side by side.
    """
    asked = usages[::answers]
    return Usage(
        sum(usage.prompt_tokens for usage in asked),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.image_tokens for usage in asked),
        sum(usage.cached_tokens for usage in asked),
        sum(usage.joules for usage in usages),
        sum(usage.audio_tokens for usage in asked),
        sum(usage.video_tokens for usage in asked),
    )


class Together:
    """The listeners of one response, of whose client one notices that it has left."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self.opened_s = listeners[0].opened_s

    @property
    def closed(self) -> bool:
        return all(listener.closed for listener in self._listeners)

    def leave(self) -> None:
        for listener in self._listeners:
            listener.leave()


class Choice:
    def __init__(self, listener: Listener, reading: Reading) -> None:
        self.listener = listener
        self.index = 0  # of the next token
        self.over = False
        self.failed: HeadraceError | None = None  # its stream is no more; set by whoever waits for its news
        self._reading = reading

    @property
    def usage(self) -> Usage:
        end = self.listener.live.end
        return Usage() if end is None else end.usage

    def said(self, extras: Callable[[Live], render.Extras | None]) -> tuple[list[bytes], HeadraceError | None]:
        """The events of what came since the last call, the last one's too; and why it ended without an answer."""
        out = []
        for token in self.listener.take():
            if said := self._reading.token(token, self.index == 0):
                out.append(said)
            self.index += 1
        end, error = self.listener.live.end, self.failed
        if end is not None:
            error = render.end_error(end)
        if end is not None or error is not None:
            self.over = True
            reason = end.reason if end is not None and error is None else "error"
            out.append(self._reading.terminal(reason, extras(self.listener.live)))
        return out, error


class Newsworthy(Protocol):
    """What news are waited for of: a Choice here, or another protocol's."""

    listener: Listener
    over: bool
    failed: HeadraceError | None


C = TypeVar("C", bound=Newsworthy)


async def news_of(choices: Sequence[C]) -> AsyncGenerator[C, None]:
    """Each choice whenever it has news, until all are over."""
    waiting: dict[asyncio.Task[None], C] = {}
    try:
        while True:
            for choice in choices:
                if not choice.over and choice not in waiting.values():
                    waiting[asyncio.ensure_future(choice.listener.news())] = choice
            if not waiting:
                return
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                choice = waiting.pop(task)
                error = task.exception()
                assert error is None or isinstance(error, HeadraceError)
                choice.failed = error
                yield choice
    finally:
        for task in waiting:
            task.cancel()
