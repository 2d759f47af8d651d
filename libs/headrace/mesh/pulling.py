"""Reading other workers' tensors: mapped where the file can be seen, else streamed by gRPC; whole, or as they grow.

Nothing here is verified against a checksum: the store does that once all bytes are there.
"""

import asyncio
import mmap
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import xxhash

from headrace.core.types import TensorHandle
from headrace.mesh import tensor_files
from headrace.mesh.errors import TransferError
from headrace.mesh.tensor_wire import Piece, fetch_call

FETCH_WAIT_S = 30.0  # without a byte for so long the owner is as good as gone
LOOK_S = 0.001  # between two looks at a draft: a layer takes longer
OWNER_LOOK_S = 0.25  # between two looks whether the owner lives
SMALL_BYTES = 256 << 10  # a checksum of less takes less than going to another thread

InThread = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Fetched:
    """The tensor's bytes, read-only. Arrays made from the buffer keep it alive past close()."""

    buffer: memoryview
    _mapped: mmap.mmap | None = None

    def close(self) -> None:
        """Lets the owner reuse the file. Where arrays still show the bytes, the last of them does that."""
        mapped, self._mapped = self._mapped, None
        try:
            self.buffer.release()
            if mapped is not None:
                mapped.close()
        except BufferError:
            return


@dataclass(frozen=True, slots=True)
class Pulled:
    """All bytes that the handle promised, and what they sum up to."""

    fetched: Fetched
    xxh3: int


async def pull_mapped(handle: TensorHandle, in_thread: InThread, _silence_s: float) -> Pulled:
    """Raises FileNotFoundError, TransferError."""
    mapped = tensor_files.map_for_reading(Path(handle.path), handle.size_bytes)
    fetched = Fetched(memoryview(mapped), mapped)
    if handle.size_bytes <= SMALL_BYTES:
        return Pulled(fetched, xxhash.xxh3_64_intdigest(fetched.buffer))
    return Pulled(fetched, await in_thread(xxhash.xxh3_64_intdigest, fetched.buffer))


async def follow_mapped(handle: TensorHandle, in_thread: InThread, silence_s: float) -> Pulled:
    """A draft, read while it is written. Raises FileNotFoundError; TransferError when it ends before it is whole."""
    file = tensor_files.map_draft(Path(handle.path), handle.size_bytes)
    fetched = Fetched(memoryview(file.map)[: handle.size_bytes], file.map)
    digest, seen = xxhash.xxh3_64(), 0
    try:
        while seen < handle.size_bytes:
            ready = await _more_than(seen, file, handle, silence_s)
            await in_thread(digest.update, fetched.buffer[seen:ready])
            seen = ready
    finally:
        if seen < handle.size_bytes:
            fetched.close()
    return Pulled(fetched, digest.intdigest())


async def _more_than(seen: int, file: tensor_files.FollowedFile, handle: TensorHandle, silence_s: float) -> int:
    directory, now = Path(handle.path).parent, asyncio.get_running_loop().time
    began_s = looked_s = now()
    while True:
        ready = file.ready_bytes()
        if ready is None:
            raise TransferError(f"{handle.id} was dropped by {handle.owner} before it was whole")
        if seen < ready <= handle.size_bytes:
            return ready
        if ready > handle.size_bytes or now() - began_s > silence_s:
            raise TransferError(f"{handle.id}: {ready} bytes of {handle.size_bytes}, and nothing for {silence_s:g} s")
        if now() - looked_s > OWNER_LOOK_S:
            looked_s = now()
            if not tensor_files.lives(directory, handle.owner, handle.incarnation):
                raise TransferError(f"{handle.owner} is gone, and {handle.id} with it")
        await asyncio.sleep(LOOK_S)


async def pull_remote(
    channel: grpc.aio.Channel, handle: TensorHandle, in_thread: InThread, silence_s: float, *, follow: bool
) -> Pulled:
    """Chunk after chunk, each one's copy and checksum while the next is on its way. Raises TransferError."""
    landing = _Landing(handle)
    try:
        async with asyncio.timeout(silence_s) as patience:
            pieces = fetch_call(channel, handle, follow=follow)
            await _land_all(landing, pieces, in_thread, patience, silence_s)
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        raise TransferError(
            f"{handle.id} of {handle.owner} at {handle.grpc_address}: {_why(error, silence_s)}"
        ) from error
    if landing.arrived != handle.size_bytes:
        raise TransferError(f"{handle.id}: {landing.arrived} of {handle.size_bytes} bytes came")
    return Pulled(Fetched(landing.data.data.toreadonly()), landing.digest.intdigest())


async def _land_all(
    landing: "_Landing", pieces: AsyncIterator[Piece], in_thread: InThread, patience: asyncio.Timeout, silence_s: float
) -> None:
    last: asyncio.Future[None] | None = None
    now = asyncio.get_running_loop().time
    try:
        async for piece in pieces:
            patience.reschedule(now() + silence_s)
            if last is not None:
                await last
            last = asyncio.ensure_future(in_thread(landing.land, piece))
    finally:
        if last is not None:
            await last


class _Landing:
    """Where chunks land, in order."""

    def __init__(self, handle: TensorHandle) -> None:
        self.data = np.empty(handle.size_bytes, np.uint8)
        self.arrived = 0
        self.digest = xxhash.xxh3_64()
        self._handle = handle

    def land(self, piece: Piece) -> None:
        """In another thread: numpy's copy lets the event loop run, a bytearray's does not."""
        end = self.arrived + len(piece.data)
        if piece.offset != self.arrived or end > self._handle.size_bytes:
            raise TransferError(f"{self._handle.id}: chunk at {piece.offset} does not fit")
        self.data[self.arrived : end] = np.frombuffer(piece.data, np.uint8)
        self.digest.update(piece.data)
        self.arrived = end


def _why(error: Exception, silence_s: float) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {error.details()}"
    return f"silent for {silence_s:g} s"
