"""Calls of tools in a text, as it streams: the text before them, and each call's name and arguments in pieces.

The grammar that the answer was drawn under fixes all but names and arguments (headrace.engines.toolcalls), so the
reader only counts braces. Text that is otherwise is shown as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from headrace.engines.toolcalls import ARGUMENTS, BEGIN, BETWEEN, END, NAME
from services.gateway import bodies
from services.gateway.text import overlap

OPENING = BEGIN + NAME


@dataclass(slots=True)
class Said:
    """What one piece of text adds."""

    content: str = ""
    calls: list[bodies.DeltaCall] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.content or self.calls)


class CallReader:
    """Feed the text in pieces. Ids of calls follow from the request's id: the same for every reader."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._state = self._text
        self._held = ""
        self._count = 0
        self._depth = 0
        self._quoted = self._escaped = False

    @property
    def called(self) -> bool:
        """Whether a call has begun."""
        return self._count > 0

    @property
    def complete(self) -> bool:
        """Whether all calls that have begun have all their arguments: a stop string may cut one."""
        return self._state == self._between

    def feed(self, text: str) -> Said:
        said = Said()
        self._held += text
        while self._state(said):
            continue
        return said

    def finish(self) -> Said:
        """What was held back: half a name, or what might have become a call."""
        rest, self._held = self._held, ""
        return Said(rest) if self._state == self._text else Said()

    # Each state takes what it can from what is held; True: the next one may go on.

    def _text(self, said: Said) -> bool:
        at = self._held.find(OPENING)
        if at < 0:
            keep = overlap(self._held, OPENING)
            said.content += self._held[: len(self._held) - keep]
            self._held = self._held[len(self._held) - keep :]
            return False
        said.content += self._held[:at]
        self._held = self._held[at + len(OPENING) :]
        self._state = self._name
        return True

    def _name(self, said: Said) -> bool:
        name, found, rest = self._held.partition(ARGUMENTS)
        if not found:
            return False
        function = bodies.DeltaFunction("", name)
        said.calls.append(bodies.DeltaCall(self._count, function, call_id(self._request_id, self._count), "function"))
        self._count += 1
        self._held, self._state = rest, self._arguments
        return True

    def _arguments(self, said: Said) -> bool:
        length = self._object_end()
        if length:
            self._say(said, self._held[:length])
            self._held = self._held[length:]
        if self._depth or not length:
            return False
        self._state = self._between
        return True

    def _say(self, said: Said, arguments: str) -> None:
        """A call stands once in a chunk, as with OpenAI: clients look at the first entry alone."""
        if said.calls and said.calls[-1].index == self._count - 1:
            said.calls[-1].function.arguments += arguments
        else:
            said.calls.append(bodies.DeltaCall(self._count - 1, bodies.DeltaFunction(arguments)))

    def _object_end(self) -> int:
        """How many of the held characters belong to the object; depth 0 behind them: they end it."""
        for at, character in enumerate(self._held):
            if self._quoted:
                self._quoted = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    return at + 1
        return len(self._held)

    def _between(self, said: Said) -> bool:
        """Behind the arguments: the call's end, and then another call or nothing."""
        following = END + BETWEEN + OPENING
        if len(self._held) < len(following):
            return False
        self._held, self._state = self._held[len(following) :], self._name
        return True


def call_id(request_id: str, index: int) -> str:
    """The end of the request's id: that tells several answers to one question apart."""
    return f"call_{request_id[-24:]}{index:02d}"


def collected(pieces: Sequence[bodies.DeltaCall]) -> list[bodies.ToolCall]:
    """Whole calls of their pieces."""
    calls: list[bodies.ToolCall] = []
    for piece in pieces:
        if piece.id is not msgspec.UNSET:
            assert piece.function.name is not msgspec.UNSET
            calls.append(bodies.ToolCall(piece.id, bodies.FunctionCall(piece.function.name, "")))
        calls[-1].function.arguments += piece.function.arguments
    return calls
