"""KV caches on their way out of this process: room for each, filled during the prefill or at its end, then sealed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from headrace.core.types import TensorHandle
from headrace.engines.base import Engine, KvManifest
from headrace.engines.kvcodec import RowFormat
from headrace.mesh.errors import TransferError
from headrace.mesh.transfer import Draft, Tensor, TensorStore
from headrace.worker.holds import Held
from headrace.worker.kvwire import KvTravel, tensor_of

# Of what a process may hold in tensors, so much at most waits for prefills to fill it: a queue of long prompts must
# not take the room of those that are done. What comes beyond is exported at its prefill's end.
WAITING_SHARE = 1 / 4


@dataclass(slots=True, eq=False)
class Export:
    """A KvSink: the engine's bytes in, the wire's bytes out. Written in the inference thread."""

    manifest: KvManifest
    draft: Draft
    rows: RowFormat | None  # packed on the way
    growing: Callable[[], None]  # called at its first bytes
    ready_bytes: int = 0  # of the engine's
    lost: bool = False  # the tmpfs is full: what comes goes nowhere
    _scratch: memoryview | None = field(default=None, repr=False)

    @property
    def tensor(self) -> Tensor:
        """What its bytes on the wire mean."""
        return tensor_of(self.manifest, packed=self.rows is not None)

    @property
    def complete(self) -> bool:
        return not self.lost and self.ready_bytes == self.manifest.size_bytes

    @property
    def buffer(self) -> memoryview:
        if self._scratch is not None:
            return self._scratch
        try:
            out = self.draft.buffer
        except TransferError:
            self.lost = True
        if self.rows is None and not self.lost:
            return out
        self._scratch = memoryview(bytearray(self.manifest.size_bytes))
        return self._scratch

    def ready(self, size_bytes: int) -> None:
        if self.lost:
            return
        first, self.ready_bytes = not self.ready_bytes, size_bytes
        self.draft.ready(size_bytes if self.rows is None else self._pack(self.rows, size_bytes))
        if self.complete:
            self._scratch = None
        elif first:
            self.growing()

    def _pack(self, rows: RowFormat, size_bytes: int) -> int:
        """What is whole rows by now; returns what is ready on the wire."""
        assert self._scratch is not None
        done, last = self.draft.ready_bytes, size_bytes // rows.row_bytes
        if last * rows.packed_row_bytes > done:
            start = done // rows.packed_row_bytes * rows.row_bytes
            stop = last * rows.packed_row_bytes
            rows.pack(self._scratch[start : last * rows.row_bytes], self.draft.buffer[done:stop])
        return last * rows.packed_row_bytes


class Exports:
    """On the event loop, but for Export itself."""

    def __init__(
        self, me: str, engine: Engine, tensors: TensorStore, travel: KvTravel, growing: Callable[[Held], None]
    ) -> None:
        """growing is called in the inference thread when a request's cache has begun to grow."""
        self._me = me
        self._engine = engine
        self._tensors = tensors
        self._travel = travel
        self._growing = growing

    def begin(self, entering: Iterable[Held]) -> None:
        """Those that another worker decodes get a sink, as far as there is room."""
        if self._travel.pipeline_bytes is None:
            return
        for held in entering:
            if held.joining_kv is None and held.command.decode_worker != self._me:
                self._begin(held, self._travel.pipeline_bytes)

    def _begin(self, held: Held, least_bytes: int) -> None:
        manifest = self._engine.prefilled_manifest(held.sequence)
        room = self._tensors.limit_bytes * WAITING_SHARE - self._tensors.draft_bytes
        if not least_bytes <= manifest.size_bytes <= room:
            return
        try:
            held.export = self._make(held, manifest, packed=self._travel.packed)
        except TransferError:
            return  # there may be room at the prefill's end

    def make(self, held: Held) -> Export:
        """For a prefill that has ended. Raises TransferError: there is no room."""
        if held.export is not None and not held.export.lost:
            return held.export
        self.abandon(held)
        held.export = self._make(held, self._engine.kv_manifest(held.key), packed=self._travel.packed)
        return held.export

    def evict(self, held: Held, room_bytes: int) -> Export | None:
        """For a request that comes back, bit for bit: never packed. None: it takes more room than there is."""
        manifest = self._engine.kv_manifest(held.key)
        if manifest.size_bytes > room_bytes:
            return None
        try:
            held.export = self._make(held, manifest, packed=False)
        except TransferError:
            return None
        return held.export

    def _make(self, held: Held, manifest: KvManifest, *, packed: bool) -> Export:
        rows = RowFormat.of(manifest.dtype, manifest.shape) if packed else None
        size_bytes = manifest.size_bytes if rows is None else rows.packed_bytes(manifest.size_bytes)
        draft = self._tensors.create(f"kv.{held.key.request_id}.{held.key.attempt}", size_bytes)
        return Export(manifest, draft, rows, partial(self._growing, held))

    def offer(self, held: Held) -> TensorHandle | None:
        """Where its cache grows; None: it is sealed or over by now."""
        if held.export is None:
            return None
        return self._tensors.offer(held.export.draft, held.export.tensor)

    def fill(self, exports: Iterable[tuple[Held, Export]]) -> None:
        """In the inference thread: what has not come during the prefill."""
        for held, export in exports:
            if not export.complete:
                self._engine.export_kv(held.key, export.buffer)
                export.ready(export.manifest.size_bytes)

    def seal(self, held: Held) -> TensorHandle:
        """Raises TransferError: it could not be written."""
        assert held.export is not None
        if not held.export.complete:
            raise TransferError(f"no room for the KV cache of {held.key.request_id}")
        handle = self._tensors.seal(held.export.draft, held.export.tensor)
        held.export = None
        return handle

    def abandon(self, held: Held) -> None:
        """The engine writes it no more, and nobody is to have it."""
        if held.export is not None:
            self._tensors.abandon(held.export.draft)
            held.export = None
