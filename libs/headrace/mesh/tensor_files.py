"""Mapped files on a tmpfs: written by one process, mapped by its neighbours, reused when nobody looks any more.

Names are `<owner>.<incarnation>.<id>`; drafts and spares start with a dot. A new page of a tmpfs costs some ten
times its copying, so files are kept for the next tensor. Locks (flock, which the kernel drops with the
process) say who lives and who reads:
  the owner's lock file, held exclusively   its process lives; sweep() removes what belongs to a dead one
  a tensor's file, held shared              somebody has it mapped; it is then never written again, only unlinked
A file's last bytes say how much of it is final, so that a draft can be read while it is written.
"""

import fcntl
import mmap
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.mesh.errors import TransferError

GRAIN = 256 << 10  # capacities are multiples of this, so that tensors of nearby sizes share files
_LOCK_PREFIX = ".lock."
# Behind the tensor, at the file's end. Written after the bytes that it tells of; where a machine shows the two in
# another order the checksum differs, and the tensor is refused.
_PROGRESS = struct.Struct("<Q")
_DROPPED = 2**64 - 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(slots=True)
class MappedFile:
    path: Path
    map: mmap.mmap
    capacity: int  # bytes

    def rename(self, path: Path) -> None:
        os.rename(self.path, path)
        self.path = path

    def tell(self, ready_bytes: int) -> None:
        """To whoever follows the draft: so much is final."""
        _PROGRESS.pack_into(self.map, self.capacity - _PROGRESS.size, ready_bytes)

    def tell_dropped(self) -> None:
        self.tell(_DROPPED)


@dataclass(frozen=True, slots=True)
class FollowedFile:
    """Another process's draft, mapped while it is written."""

    map: mmap.mmap

    def ready_bytes(self) -> int | None:
        """How much is final; None: its owner has dropped it."""
        (ready_bytes,) = _PROGRESS.unpack_from(self.map, len(self.map) - _PROGRESS.size)
        return None if ready_bytes == _DROPPED else int(ready_bytes)


class FileStore:
    """The files of one process. Single-threaded."""

    def __init__(self, directory: Path, owner: str, incarnation: str, spare_bytes: int) -> None:
        """spare_bytes: at most so much waits for reuse."""
        assert "." not in owner, owner
        assert "." not in incarnation, incarnation
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._stem = f"{owner}.{incarnation}"
        self._spare: list[MappedFile] = []
        self._spare_bytes_max = spare_bytes
        self._spare_bytes = 0
        self._made = 0
        self._lock_fd = os.open(directory / (_LOCK_PREFIX + self._stem), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)

    def spare(self, size_bytes: int) -> MappedFile | None:
        """A draft with room for size_bytes whose pages are there already, its old contents undefined."""
        capacity = capacity_of(size_bytes)
        fits = [file for file in self._spare if capacity <= file.capacity <= capacity + capacity // 2]
        if not fits:
            return None
        file = min(fits, key=lambda spare: spare.capacity)
        self._spare.remove(file)
        self._spare_bytes -= file.capacity
        return file

    def draft_path(self) -> Path:
        """A name that no draft has had."""
        self._made += 1
        return self.directory / f".{self._stem}.{self._made}"

    def publish(self, file: MappedFile, tensor_id: str) -> None:
        """From now on it is there under its name, whole."""
        if not _ID.fullmatch(tensor_id):
            raise TransferError(f"tensor id {tensor_id!r} cannot be a file's name")
        file.rename(self.directory / f"{self._stem}.{tensor_id}")

    def discard(self, file: MappedFile) -> None:
        """Takes the name away; keeps the pages for the next tensor unless somebody reads them."""
        if self._spare_bytes + file.capacity > self._spare_bytes_max or not self._to_spare(file):
            file.path.unlink(missing_ok=True)
            return
        self._spare.append(file)
        self._spare_bytes += file.capacity

    def _to_spare(self, file: MappedFile) -> bool:
        try:
            fd = os.open(file.path, os.O_RDWR)
        except FileNotFoundError:
            return False  # somebody cleared the directory
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.rename(self.draft_path())  # before the lock goes: see map_for_reading
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def files(self) -> list[Path]:
        """What lies under this process's name; drafts and spares are not counted."""
        return sorted(self.directory.glob(self._stem + ".*"))

    def close(self) -> None:
        """Removes everything of this process."""
        for path in self.directory.iterdir():
            if path.name.removeprefix(".").startswith(self._stem + "."):
                path.unlink(missing_ok=True)
        (self.directory / (_LOCK_PREFIX + self._stem)).unlink(missing_ok=True)
        os.close(self._lock_fd)


def capacity_of(size_bytes: int) -> int:
    """What a tensor of this size takes."""
    return -(-(size_bytes + _PROGRESS.size) // GRAIN) * GRAIN


def make(path: Path, size_bytes: int) -> MappedFile:
    """A new draft. Takes a millisecond a megabyte, in any thread. Raises TransferError if the tmpfs is full."""
    capacity = capacity_of(size_bytes)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(fd, 0, capacity)  # a full tmpfs is an error here, not a SIGBUS at the first write
        mapped = mmap.mmap(fd, capacity)
        np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE] = 0  # faults in this thread, not in the writer's
        return MappedFile(path, mapped, capacity)
    except OSError as error:
        path.unlink()
        raise TransferError(f"no room for {capacity} bytes in {path.parent}: {error.strerror}") from error
    finally:
        os.close(fd)


def map_for_reading(path: Path, size_bytes: int) -> mmap.mmap:
    """Mapped and locked against reuse until the mapping is gone. Raises FileNotFoundError, TransferError."""
    return _map_locked(path, size_bytes, whole=False)


def map_draft(path: Path, size_bytes: int) -> FollowedFile:
    """As map_for_reading, of a tensor that is still being written."""
    return FollowedFile(_map_locked(path, size_bytes + _PROGRESS.size, whole=True))


def _map_locked(path: Path, size_bytes: int, *, whole: bool) -> mmap.mmap:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        found = os.fstat(fd)
        if os.stat(path).st_ino != found.st_ino or not found.st_size:
            raise FileNotFoundError(path)  # reused between open and lock, or just being made
        if found.st_size < size_bytes:
            raise TransferError(f"{path.name} holds {found.st_size} bytes, not {size_bytes}")
        # Its copy of fd keeps the lock.
        return mmap.mmap(fd, 0 if whole else size_bytes, prot=mmap.PROT_READ)
    except BlockingIOError:
        raise FileNotFoundError(path) from None  # the owner is taking it away
    finally:
        os.close(fd)


def lives(directory: Path, owner: str, incarnation: str) -> bool:
    """Whether the process is there that these files belong to."""
    return _held(directory / f"{_LOCK_PREFIX}{owner}.{incarnation}")


def is_draft_of(path: Path, owner: str, incarnation: str) -> bool:
    return path.name.startswith(f".{owner}.{incarnation}.")


def sweep(directory: Path) -> int:
    """Removes the files of processes that are gone, however they went. Returns how many tensors that were."""
    if not directory.is_dir():
        return 0
    living = {path.name.removeprefix(_LOCK_PREFIX) for path in directory.glob(_LOCK_PREFIX + "*") if _held(path)}
    removed = 0
    for path in list(directory.iterdir()):
        if not path.is_file():
            continue  # the socket of a Redis that shares the directory
        is_lock = path.name.startswith(_LOCK_PREFIX)
        name = path.name.removeprefix(_LOCK_PREFIX) if is_lock else path.name.removeprefix(".")
        stem = ".".join(name.split(".")[:2])
        if stem not in living and not (is_lock and _held(path)):  # asked again: it may have started just now
            path.unlink(missing_ok=True)
            removed += not path.name.startswith(".")
    return removed


def _held(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
