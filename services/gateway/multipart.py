"""multipart/form-data (RFC 7578) of a body that is in memory: names, file names and contents, nothing nested."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from headrace.core.errors import InvalidInput

PARTS_MAX = 64
HEAD_BYTES_MAX = 8_192
_BOUNDARY = re.compile(
    rb'^multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_DISPOSITION = re.compile(rb"^content-disposition\s*:\s*form-data\s*(;.*)$", re.IGNORECASE)
_PARAMETER = re.compile(rb';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    data: bytes
    filename: str = ""


def fields_of(content_type: bytes, body: bytes) -> list[Field]:
    """In the order of the body.

    Raises:
        InvalidInput: it is not multipart/form-data, or not whole.
    """
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise InvalidInput("want multipart/form-data with a boundary", field="content-type")
    return [_field(part) for part in _parts(b"\r\n--" + (found.group(1) or found.group(2)), body)]


def _parts(mark: bytes, body: bytes) -> Iterator[bytes]:
    """What stands between the marks; the first one may stand at the very beginning."""
    at = 0 if body.startswith(mark[2:]) else body.find(mark)
    if at < 0:
        raise InvalidInput("the body does not hold its boundary", field="body")
    at += len(mark) - (2 if at == 0 and body.startswith(mark[2:]) else 0)
    for _ in range(PARTS_MAX):
        if body.startswith(b"--", at):
            return
        begin = body.find(b"\r\n", at)
        end = body.find(mark, begin) if begin >= 0 else -1
        if end < 0:
            raise InvalidInput("the body ends before its last boundary", field="body")
        yield body[begin + 2 : end] if end > begin else b""
        at = end + len(mark)
    raise InvalidInput(f"more than {PARTS_MAX} parts", field="body")


def _field(part: bytes) -> Field:
    end = part.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
    if end < 0:
        raise InvalidInput("a part without headers", field="body")
    for line in part[:end].split(b"\r\n"):
        if disposition := _DISPOSITION.match(line.strip()):
            said = {name.lower(): value for name, value in _PARAMETER.findall(disposition.group(1))}
            return Field(_text(said.get(b"name", b"")), part[end + 4 :], _text(said.get(b"filename", b"")))
    raise InvalidInput("a part without a name", field="body")


def _text(value: bytes) -> str:
    return re.sub(rb"\\(.)", rb"\1", value).decode("utf-8", "replace")
