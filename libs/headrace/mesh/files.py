"""Files of tenants: what they upload and what batches write for them; whole and synced before anybody may name them.

Beside the blobs of requests, which are swept with their requests: a file lives for days. One file, one object named by
its id; its record, with its SHA-256 and its owner, is kept elsewhere (mesh/catalogue.py).
"""

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator, Container
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headrace.core.errors import NotFound, Unavailable
from headrace.mesh.blobs import changed_s, sync_directory

CHUNK_BYTES = 1 << 20  # read and written at once
_ID = re.compile(r"[0-9a-f]{32}")
_PART = ".part"


@dataclass(frozen=True, slots=True)
class Sealed:
    size_bytes: int
    sha256: str


class FileDraft:
    """A file being written; nobody sees it before seal()."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_PART}")
        self._hash, self._size = hashlib.sha256(), 0
        fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(fd, "wb")

    @property
    def size_bytes(self) -> int:
        return self._size

    def write(self, data: bytes) -> None:
        """To the page cache: small pieces need no thread. Raises Unavailable: there is no room."""
        try:
            self._file.write(data)
        except OSError as error:
            raise _no_room(error) from error
        self._hash.update(data)
        self._size += len(data)

    async def seal(self) -> Sealed:
        """Under its name, instead of an older one. Raises Unavailable: there is no room."""
        try:
            await asyncio.to_thread(self._seal)
        except OSError as error:
            self.discard()
            raise _no_room(error) from error
        return Sealed(self._size, self._hash.hexdigest())

    def _seal(self) -> None:
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._part.rename(self._path)
        sync_directory(self._path.parent)

    def discard(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


class FileStore:
    """<directory>/files/<id>; several processes may share it."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "files"
        self._root.mkdir(parents=True, exist_ok=True)

    def draft(self, file_id: str) -> FileDraft:
        """Raises Unavailable: there is no room."""
        try:
            return FileDraft(self._path(file_id))
        except OSError as error:
            raise _no_room(error) from error

    async def put(self, file_id: str, data: bytes) -> Sealed:
        """Durable when it returns. Raises Unavailable."""
        draft = self.draft(file_id)
        await asyncio.to_thread(draft.write, data)
        return await draft.seal()

    async def lines(self, file_id: str) -> AsyncGenerator[list[bytes], None]:
        """About a megabyte of lines at a time, each with its end. Raises NotFound."""
        file = self._open(file_id)
        with file:
            while lines := await asyncio.to_thread(file.readlines, CHUNK_BYTES):
                yield lines

    async def chunks(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """Raises NotFound."""
        file = self._open(file_id)
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    def has(self, file_id: str) -> bool:
        return self._path(file_id).exists()

    async def drop(self, file_id: str) -> None:
        await asyncio.to_thread(self._path(file_id).unlink, missing_ok=True)

    async def sweep(self, live_ids: Container[str], older_than_s: float) -> int:
        """Removes files of which there is no record, once they are that old; returns how many."""
        return await asyncio.to_thread(self._sweep, live_ids, time.time() - older_than_s)

    def _sweep(self, live_ids: Container[str], before_s: float) -> int:
        old = [path for path in self._root.iterdir() if path.name not in live_ids and changed_s(path) < before_s]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _open(self, file_id: str) -> BinaryIO:
        try:
            return self._path(file_id).open("rb")
        except FileNotFoundError as error:
            raise NotFound("the file's content is not on this machine", field="file_id") from error

    def _path(self, file_id: str) -> Path:
        assert _ID.fullmatch(file_id), file_id
        return self._root / file_id


def _no_room(error: OSError) -> Unavailable:
    return Unavailable(f"the file cannot be stored: {error.strerror}", retry_after_s=5.0)
