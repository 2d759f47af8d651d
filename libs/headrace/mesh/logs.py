"""JSON logs on stderr: one object a line, with the event's name first and ids as fields.

Lines hold ids, counts and times, never what was asked or answered. Nothing on a hot path logs.
`log = get_logger("queue"); log.info("requeued", request_id=..., attempt=...)`.
"""

import logging
import sys
from typing import Any

import msgspec

_ROOT = "headrace"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "time_s": round(record.created, 6),
            "process": self._process,
            "logger": record.name.removeprefix(_ROOT + "."),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if traceparent := line.pop("traceparent", ""):
            line["trace_id"] = traceparent[3:35]
            line.setdefault("span_id", traceparent[36:52])
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encode(line).decode()


class Logger:
    """Keyword arguments become fields; request_id and traceparent are the usual ones. The latter is told as trace_id
    and span_id, the request's own span unless another span_id is given."""

    def __init__(self, inner: logging.Logger) -> None:
        self._inner = inner

    def debug(self, event: str, **fields: Any) -> None:
        self._inner.debug(event, extra=fields)

    def info(self, event: str, **fields: Any) -> None:
        self._inner.info(event, extra=fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._inner.warning(event, extra=fields)

    def error(self, event: str, **fields: Any) -> None:
        self._inner.error(event, extra=fields)

    def failure(self, event: str, cause: BaseException, **fields: Any) -> None:
        """An error with the exception's traceback."""
        self._inner.error(event, extra=fields, exc_info=cause)


def get_logger(name: str) -> Logger:
    return Logger(logging.getLogger(f"{_ROOT}.{name}"))


def set_up_logging(process: str, level: str) -> None:
    """Once per process, before anything logs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other people's libraries
    logging.getLogger(_ROOT).setLevel(level.upper())
