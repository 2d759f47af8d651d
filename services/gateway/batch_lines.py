"""The lines of a batch: what must be right before any of them runs, and what is written of each at its end.

Input and output are JSON lines as OpenAI has them; a line's body is checked by its endpoint when it runs.
"""

from typing import Literal

import msgspec

from headrace.mesh.outcomes import OUTCOME_BYTES_MAX
from services.gateway.batch_records import LineError

CUSTOM_ID_CHARS_MAX = 512
ERRORS_MAX = 100  # told of one batch: whoever has more of them has one mistake
Kind = Literal["output", "error"]
_encode = msgspec.json.Encoder().encode


class InputLine(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class Reply(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class Trouble(msgspec.Struct):
    """Why a line has no reply."""

    code: str
    message: str


class OutputLine(msgspec.Struct):
    id: str
    custom_id: str
    response: Reply | None
    error: Trouble | None


_decode = msgspec.json.Decoder(InputLine).decode


def read(line: bytes) -> InputLine:
    """Of a line that has passed the check."""
    return _decode(line)


class Check:
    """Fed with every line in order; what is wrong gathers in errors, up to ERRORS_MAX."""

    def __init__(self, endpoint: str, lines_max: int) -> None:
        self._endpoint = endpoint
        self._lines_max = lines_max
        self._ids: set[str] = set()
        self.lines = 0
        self.errors: list[LineError] = []

    @property
    def hopeless(self) -> bool:
        return len(self.errors) >= ERRORS_MAX or self.lines > self._lines_max

    def feed(self, line: bytes) -> None:
        self.lines += 1
        if self.lines > self._lines_max:
            message = f"the file has more than {self._lines_max} lines"
            self.errors = [LineError("too_many_tasks", message)]
            return
        error = self._wrong(line)
        if error is not None:
            self.errors.append(error)

    def end(self) -> None:
        if not self.lines:
            self.errors.append(LineError("empty_file", "the file has no lines"))

    def _wrong(self, line: bytes) -> LineError | None:
        number = self.lines
        try:
            parsed = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return LineError("invalid_json_line", f"not a request: {error}", number)
        if not 1 <= len(parsed.custom_id) <= CUSTOM_ID_CHARS_MAX:
            message = f"a custom_id has 1 to {CUSTOM_ID_CHARS_MAX} characters"
            return LineError("invalid_custom_id", message, number, "custom_id")
        if parsed.custom_id in self._ids:
            message = f"the custom_id {parsed.custom_id[:64]!r} stands in an earlier line too"
            return LineError("duplicate_custom_id", message, number, "custom_id")
        self._ids.add(parsed.custom_id)
        if parsed.method != "POST":
            return LineError("invalid_method", f"{parsed.method[:16]!r} is not POST", number, "method")
        if parsed.url != self._endpoint:
            message = f"{parsed.url[:64]!r} is not the batch's endpoint, {self._endpoint}"
            return LineError("invalid_url", message, number, "url")
        return self._wrong_body(bytes(parsed.body), number)

    def _wrong_body(self, body: bytes, number: int) -> LineError | None:
        if not body.startswith(b"{"):
            return LineError("invalid_request", "the body is not an object", number, "body")
        try:  # a Raw is only skipped: what stands in it has not been read before
            streamed = b'"stream"' in body and msgspec.json.decode(body).get("stream")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return LineError("invalid_json_line", f"not a request: {error}", number, "body")
        if streamed:
            return LineError("invalid_request", "a batch's answers are not streamed", number, "body.stream")
        return None


def replied(line_id: str, custom_id: str, status: int, request_id: str, body: bytes) -> bytes:
    """The record of a line that its endpoint has answered, one way or the other."""
    kind: Kind = "output" if status == 200 else "error"
    reply = Reply(status, request_id, msgspec.Raw(body))
    record = _record(kind, OutputLine(line_id, custom_id, reply, None))
    if len(record) > OUTCOME_BYTES_MAX:
        message = f"the answer has {len(body)} bytes; a batch keeps at most {OUTCOME_BYTES_MAX} a line"
        return unanswered(line_id, custom_id, Trouble("response_too_large", message))
    return record


def unanswered(line_id: str, custom_id: str, trouble: Trouble) -> bytes:
    return _record("error", OutputLine(line_id, custom_id, None, trouble))


def _record(kind: Kind, line: OutputLine) -> bytes:
    return kind[:1].encode() + _encode(line) + b"\n"


def is_output(record: bytes) -> bool:
    return record.startswith(b"o")


def line_of(record: bytes) -> bytes:
    """As it stands in the file."""
    return record[1:]
