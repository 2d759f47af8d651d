"""A tensor on its way into being: filled front to back by one thread, followed by readers, sealed on the event loop."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import xxhash

from headrace.mesh.errors import TransferError
from headrace.mesh.tensor_files import MappedFile


class Draft:
    """Room for a tensor. Only those who were told of it see it; everybody else from the seal on.

    Its pages are made in another thread: whoever asks for the buffer first waits for them.
    """

    def __init__(self, tensor_id: str, size_bytes: int, path: Path, file: "Future[MappedFile]") -> None:
        assert size_bytes > 0
        self.id = tensor_id
        self.size_bytes = size_bytes
        self.path = path  # of the draft; the sealed tensor gets another
        self.ready_bytes = 0
        self.dropped = False
        self._file = file
        self._buffer: memoryview | None = None
        self._hash = xxhash.xxh3_64()

    @property
    def failed(self) -> bool:
        return self._file.done() and (self._file.cancelled() or self._file.exception() is not None)

    @property
    def buffer(self) -> memoryview:
        """Raises TransferError: the tmpfs is full."""
        if self._buffer is None:
            self._buffer = memoryview(self.file.map)[: self.size_bytes]
        return self._buffer

    @property
    def file(self) -> MappedFile:
        return self._file.result()

    @property
    def checksum(self) -> int:
        assert self.ready_bytes == self.size_bytes, f"{self.id}: {self.ready_bytes} of {self.size_bytes} bytes"
        return self._hash.intdigest()

    def ready(self, size_bytes: int) -> None:
        """buffer[:size_bytes] is final: it is added to the checksum (a millisecond for ten megabytes) and told of."""
        assert self.ready_bytes <= size_bytes <= self.size_bytes, f"{self.id}: {size_bytes} after {self.ready_bytes}"
        self._hash.update(self.buffer[self.ready_bytes : size_bytes])
        self.ready_bytes = size_bytes
        self.file.tell(size_bytes)

    def drop(self, discard: Callable[[MappedFile], None]) -> None:
        """Nobody writes it any more. discard is called for pages that are there; those on their way are unlinked."""
        self.dropped = True
        if self._file.done():
            if not self.failed:
                self.file.tell_dropped()
                discard(self.file)
        elif not self._file.cancel():
            self._file.add_done_callback(_unlink)


def _unlink(making: "Future[MappedFile]") -> None:
    """In the thread that made it."""
    try:
        file = making.result()
    except TransferError:
        return
    file.path.unlink(missing_ok=True)
