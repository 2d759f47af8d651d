"""Media bytes of accepted requests: on disk before the journal says accepted, gone with the request.

One interface; a directory here (a named volume in containers). Objects are named by their SHA-256, under
their request's id.
"""

import asyncio
import hashlib
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Container
from pathlib import Path
from typing import Protocol

from headrace.core.errors import NotFound, StageError, Unavailable

_REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = ".part"


class BlobStore(Protocol):
    async def put(self, request_id: str, data: bytes) -> str:
        """Durable when it returns its SHA-256. Raises Unavailable when there is no room."""
        ...

    async def get(self, request_id: str, sha256: str) -> bytes:
        """Raises NotFound, StageError (the bytes are not what the name says)."""
        ...

    async def drop(self, request_id: str) -> None: ...

    async def sweep(self, live_ids: Container[str], older_than_s: float) -> int:
        """Removes requests that nobody knows any more; returns how many."""
        ...

    async def count(self) -> int:
        """Objects there are."""
        ...


class DirectoryBlobs:
    """<directory>/blobs/<request id>/<sha256>; several processes may share it."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "blobs"
        self._root.mkdir(parents=True, exist_ok=True)

    async def put(self, request_id: str, data: bytes) -> str:
        return await asyncio.to_thread(self._put, request_id, data)

    def _put(self, request_id: str, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        folder = self._folder(request_id)
        try:
            folder.mkdir(exist_ok=True)
            path = folder / sha256
            if not path.exists():
                write_durably(path, data)
            sync_directory(self._root)
        except OSError as error:
            raise Unavailable(f"the media cannot be stored: {error.strerror}", retry_after_s=5.0) from error
        return sha256

    async def get(self, request_id: str, sha256: str) -> bytes:
        return await asyncio.to_thread(self._get, request_id, sha256)

    def _get(self, request_id: str, sha256: str) -> bytes:
        if not _SHA256.fullmatch(sha256):
            raise NotFound(f"{sha256!r} is not the name of a blob")
        try:
            data = (self._folder(request_id) / sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"no blob {sha256} of request {request_id}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StageError(f"blob {sha256} of request {request_id} is corrupt")
        return data

    async def drop(self, request_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder(request_id), ignore_errors=True)

    async def sweep(self, live_ids: Container[str], older_than_s: float) -> int:
        return await asyncio.to_thread(self._sweep, live_ids, time.time() - older_than_s)

    def _sweep(self, live_ids: Container[str], before_s: float) -> int:
        old = [path for path in self._root.iterdir() if path.name not in live_ids and changed_s(path) < before_s]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        return len(old)

    async def count(self) -> int:
        return await asyncio.to_thread(lambda: sum(not name.endswith(_PART) for name in names_under(self._root)))

    def _folder(self, request_id: str) -> Path:
        assert _REQUEST_ID.fullmatch(request_id), request_id
        return self._root / request_id


def names_under(root: Path) -> list[str]:
    """Of all files in it; a folder that goes meanwhile has none."""
    return [name for _, _, names in os.walk(root) for name in names]


def changed_s(path: Path) -> float:
    """When it last changed; never, if it has just been dropped: that is not the sweep's to tell."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def write_durably(path: Path, data: bytes) -> None:
    """Under its name only when it is whole; both the bytes and the name survive a crash of the machine."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_PART}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
