"""Tensors between workers: embeddings and KV caches, mapped on one host, streamed by gRPC between hosts.

A reader gets every byte that the handle promises, checked, or a TransferError: nothing partial ever.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from headrace.core.types import TensorHandle
from headrace.mesh import tensor_files
from headrace.mesh.config import Settings
from headrace.mesh.drafts import Draft
from headrace.mesh.errors import TransferError
from headrace.mesh.pulling import FETCH_WAIT_S, Fetched, InThread, Pulled, follow_mapped, pull_mapped, pull_remote
from headrace.mesh.rpc import Channels
from headrace.mesh.tensor_service import TransferServicer
from headrace.mesh.tensor_wire import CHUNK_BYTES
from headrace.mesh.tls import Tls

__all__ = ["CHUNK_BYTES", "FETCH_WAIT_S", "MAX_TENSOR_BYTES", "Draft", "Fetched", "Pulled", "Tensor", "TensorStore"]

T = TypeVar("T")

MAX_TENSOR_BYTES = 8 << 30  # a handle that claims more is wrong: no memory is taken for it
SPARE_SHARE = 1 / 4  # of the bytes that a process may hold: so much may wait for the next tensors
THREADS = 2  # one makes pages or sums up a large tensor while the other lands chunks


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a tensor's bytes mean: the fields of its handle that its maker knows."""

    dtype: str
    shape: tuple[int, ...]
    layout: str
    length: int  # tokens covered (KV) or rows (embeddings)
    next_position: int = 0
    cross_length: int = 0
    codec: str = ""


class TensorStore:
    def __init__(
        self,
        directory: Path,
        owner: str,
        incarnation: str,
        host: str,
        grpc_address: str = "",
        *,
        limit_bytes: int = 4 << 30,
        force_grpc: bool = False,
        silence_s: float = FETCH_WAIT_S,
        tls: Tls | None = None,
    ) -> None:
        """grpc_address may be set later, when the server listens; handles made before carry none."""
        self.silence_s = silence_s
        self.grpc_address = grpc_address
        self.limit_bytes = limit_bytes
        self._files = tensor_files.FileStore(directory, owner, incarnation, int(limit_bytes * SPARE_SHARE))
        self._owner, self._incarnation, self._host = owner, incarnation, host
        self._force_grpc = force_grpc
        self._drafts: dict[str, Draft] = {}
        self._sealed: dict[str, tuple[TensorHandle, Draft]] = {}
        self._kept: dict[str, tuple[TensorHandle, memoryview]] = {}  # in this process's own memory
        self._capacity: dict[str, int] = {}  # bytes that each of all these takes
        self._channels = Channels(tls=tls)
        self._thread = ThreadPoolExecutor(THREADS, "tensors")

    @staticmethod
    def open(settings: Settings, owner: str, incarnation: str) -> "TensorStore":
        force = settings.transfer == "grpc"
        return TensorStore(
            settings.shm_dir,
            owner,
            incarnation,
            settings.host,
            limit_bytes=settings.shm_bytes,
            force_grpc=force,
            tls=Tls.of(settings),
        )

    # --- own tensors ---

    def create(self, tensor_id: str, size_bytes: int) -> Draft:
        """Raises TransferError when this process holds too much; a full tmpfs shows when the draft is written."""
        assert size_bytes > 0
        assert tensor_id not in self._sealed, tensor_id
        self.drop(tensor_id)
        self._room(size_bytes)
        spare = self._files.spare(size_bytes)
        file: Future[tensor_files.MappedFile]
        if spare is not None:
            path, file, capacity = spare.path, Future(), spare.capacity
            spare.tell(0)
            file.set_result(spare)
        else:
            path, capacity = self._files.draft_path(), tensor_files.capacity_of(size_bytes)
            file = self._thread.submit(tensor_files.make, path, size_bytes)
        draft = self._drafts[tensor_id] = Draft(tensor_id, size_bytes, path, file)
        self._capacity[tensor_id] = capacity
        return draft

    def _room(self, size_bytes: int) -> None:
        if self.held_bytes + size_bytes > self.limit_bytes:
            raise TransferError(f"{self._owner} holds {self.held_bytes} bytes of tensors: no room for {size_bytes}")

    def offer(self, draft: Draft, tensor: Tensor) -> TensorHandle:
        """For followers: where it is being written. Its checksum is not known yet."""
        assert self._drafts.get(draft.id) is draft, f"{draft.id} was dropped or sealed before"
        return self._handle(draft.id, str(draft.path), draft.size_bytes, 0, tensor)

    def seal(self, draft: Draft, tensor: Tensor) -> TensorHandle:
        """All of it is ready: from now on it can be fetched. Raises TransferError: its id is no name for a file."""
        assert self._drafts.get(draft.id) is draft, f"{draft.id} was dropped or sealed before"
        checksum = draft.checksum
        self._files.publish(draft.file, draft.id)
        del self._drafts[draft.id]
        handle = self._handle(draft.id, str(draft.file.path), draft.size_bytes, checksum, tensor)
        self._sealed[draft.id] = (handle, draft)
        return handle

    def keep(self, tensor_id: str, data: memoryview, xxh3: int, tensor: Tensor) -> TensorHandle:
        """A tensor that stays in memory, for readers in this process; others get it by gRPC. Raises TransferError."""
        self.drop(tensor_id)
        self._room(data.nbytes)
        handle = self._handle(tensor_id, "", data.nbytes, xxh3, tensor)
        self._kept[tensor_id] = (handle, data.cast("B").toreadonly())
        self._capacity[tensor_id] = data.nbytes
        return handle

    def _handle(self, tensor_id: str, path: str, size_bytes: int, xxh3: int, tensor: Tensor) -> TensorHandle:
        return TensorHandle(
            id=tensor_id,
            owner=self._owner,
            incarnation=self._incarnation,
            path=path,
            host=self._host,
            grpc_address=self.grpc_address,
            dtype=tensor.dtype,
            shape=tensor.shape,
            layout=tensor.layout,
            size_bytes=size_bytes,
            xxh3=xxh3,
            length=tensor.length,
            next_position=tensor.next_position,
            cross_length=tensor.cross_length,
            codec=tensor.codec,
        )

    def drop(self, tensor_id: str) -> None:
        """Sealed or not; dropping what is not there is fine. Nobody may be writing it any more."""
        self._kept.pop(tensor_id, None)
        draft = self._drafts.pop(tensor_id, None)
        if draft is None and tensor_id in self._sealed:
            _, draft = self._sealed.pop(tensor_id)
        if draft is not None:
            draft.drop(self._files.discard)
        self._capacity.pop(tensor_id, None)

    def abandon(self, draft: Draft) -> None:
        """As drop, of this very draft: another one may have its name by now."""
        if self._drafts.get(draft.id) is draft:
            self.drop(draft.id)

    def handles(self) -> dict[str, TensorHandle]:
        held = {**self._sealed, **self._kept}
        return {tensor_id: handle for tensor_id, (handle, _) in held.items()}

    def draft(self, tensor_id: str) -> Draft | None:
        return self._drafts.get(tensor_id)

    def kept(self, tensor_id: str) -> memoryview | None:
        return self._kept[tensor_id][1] if tensor_id in self._kept else None

    def files(self) -> list[Path]:
        return self._files.files()

    @property
    def incarnation(self) -> str:
        return self._incarnation

    @property
    def held_bytes(self) -> int:
        return sum(self._capacity.values())

    @property
    def draft_bytes(self) -> int:
        """Of that, what is still being written."""
        return sum(self._capacity[tensor_id] for tensor_id in self._drafts)

    def sweep(self) -> int:
        """Removes what dead processes left in the directory."""
        return tensor_files.sweep(self._files.directory)

    async def close(self) -> None:
        await self._channels.close()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._files.close()

    # --- other workers' tensors ---

    async def fetch(self, handle: TensorHandle) -> Fetched:
        """Raises TransferError: gone, out of reach, truncated or corrupt."""
        return verified(handle, await self._pull(handle, pull_mapped, follow=False))

    async def follow(self, offered: TensorHandle) -> Pulled:
        """An offered tensor as it grows, to its last byte; `verified` tells whether it is what the sealed one promises.

        Raises:
            TransferError: it was dropped, its owner is gone or out of reach, or it grew no more for silence_s.
        """
        return await self._pull(offered, follow_mapped, follow=True)

    async def _pull(
        self,
        handle: TensorHandle,
        mapped: Callable[[TensorHandle, InThread, float], Awaitable[Pulled]],
        *,
        follow: bool,
    ) -> Pulled:
        """Where the file cannot be seen (also where two hosts share a name by mistake) the owner is asked."""
        if not 0 < handle.size_bytes <= MAX_TENSOR_BYTES:
            raise TransferError(f"{handle.id}: {handle.size_bytes} bytes cannot be right")
        if self._may_map(handle, follow=follow):
            try:
                return await mapped(handle, self._in_thread, self.silence_s)
            except FileNotFoundError:
                pass
        if not handle.grpc_address:
            raise TransferError(f"{handle.id} of {handle.owner} is gone")
        channel = self._channels.get(handle.grpc_address)
        return await pull_remote(channel, handle, self._in_thread, self.silence_s, follow=follow)

    def _may_map(self, handle: TensorHandle, *, follow: bool) -> bool:
        path = Path(handle.path)
        here = not self._force_grpc and handle.host == self._host and path.parent == self._files.directory
        return here and (not follow or tensor_files.is_draft_of(path, handle.owner, handle.incarnation))

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def servicer(self) -> TransferServicer:
        return TransferServicer(self)


def verified(handle: TensorHandle, pulled: Pulled, offered: TensorHandle | None = None) -> Fetched:
    """What was pulled, if it is what the sealed handle promises; also when it was followed from an offer.

    Raises:
        TransferError: another tensor, or other bytes.
    """
    if offered is not None and offered != replace(handle, path=offered.path, xxh3=0):
        pulled.fetched.close()
        raise TransferError(f"{handle.id} of {handle.owner} is not what was offered")
    if pulled.xxh3 != handle.xxh3:
        pulled.fetched.close()
        raise TransferError(f"{handle.id} of {handle.owner}: checksum differs")
    return pulled.fetched
