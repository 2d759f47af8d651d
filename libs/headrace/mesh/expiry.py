"""When certificates run out, read from their own bytes: what serves carries no library for certificates."""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


def expires_s(path: Path) -> float:
    """Unix time at which the first of a PEM file's certificates runs out.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no certificate.
    """
    blocks = _PEM.findall(path.read_bytes())
    if not blocks:
        raise ValueError(f"{path}: no certificate")
    return min(_not_after(base64.b64decode(block)) for block in blocks)


def _not_after(der: bytes) -> float:
    """Of RFC 5280: Certificate { TBSCertificate { [0] version?, serial, signature, issuer, Validity, ... } }."""
    try:
        fields = _values(next(_values(next(_values(der))[1]))[1])
        tag, _ = next(fields)
        for _ in range(3 if tag == _VERSION else 2):
            next(fields)
        _, (kind, ends) = _values(next(fields)[1])
    except (StopIteration, IndexError) as error:
        raise ValueError("this is no certificate") from error
    form = "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(ends.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def _values(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of what stands one behind the other; lengths as X.690 8.1.3 has them."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            more = size & 0x7F
            size, at = int.from_bytes(der[at : at + more]), at + more
        yield tag, der[at : at + size]
        at += size
