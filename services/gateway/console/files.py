"""The console's page: files that are read once, compressed once, and sent again only when they have changed."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from headrace.core.errors import NotFound

INDEX = "index.html"
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Nothing but this page's own files, no script or style that is written into it, and nobody frames it.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # kept, and asked about by its etag each time
    "vary": "accept-encoding",
}


@dataclass(frozen=True, slots=True)
class File:
    kind: str
    body: bytes
    packed: bytes  # gzip
    etag: str


def read_files() -> Mapping[str, File]:
    folder = resources.files("headrace") / "assets" / "console"
    found = {}
    for one in folder.iterdir():
        kind = TYPES.get(one.name.rpartition(".")[2])
        if kind is not None:
            body = one.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            found[one.name] = File(kind, body, gzip.compress(body, 9, mtime=0), etag)
    return found


def answer(files: Mapping[str, File], name: str, headers: Mapping[bytes, bytes]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, body. Raises NotFound."""
    file = files.get(name or INDEX)
    if file is None:
        raise NotFound("no such file of the console")
    sent = {**HEADERS, "content-type": file.kind, "etag": file.etag}
    if file.etag.encode() in headers.get(b"if-none-match", b""):
        return 304, sent, b""
    if b"gzip" in headers.get(b"accept-encoding", b""):
        return 200, sent | {"content-encoding": "gzip"}, file.packed
    return 200, sent, file.body
