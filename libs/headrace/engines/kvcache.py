"""The KV of decoding sequences as plain numpy: each decode batch is a contiguous view of the first n rows.

Rows of similar length share a group, padded to its longest; groups differ by a factor of four. A row that
frees in the middle takes the last one. What waits or is paused lies outside, in arrays of its own size.
"""

import mmap
import sys
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.core.types import Key
from headrace.engines.families.llama import LlamaShape

Stack = NDArray[np.float32]  # KV arrays of several sequences on a common first axis
Kv = NDArray[np.float32]  # [2 * layers: keys and values of layer 0, of layer 1, ...; kv_heads; positions; head_width]

_GROUP_RATIO = 4  # a row is padded to at most four times its length: the bound on memory beside blocks
_SMALLEST_GROUP_TOKENS = 512
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0  # mmap.MAP_NORESERVE, which Python names from 3.13 on
_STRIDE_TOKENS = 64  # rows grow in such steps, so that a group is copied every few dozen iterations at most


def new_kv(shape: LlamaShape, length: int) -> Kv:
    return np.empty((2 * shape.layers, shape.kv_heads, length, shape.head_width), np.float32)


class Resident(Protocol):
    """Where a model keeps a group's KV while it decodes it."""

    def settle(self) -> None:
        """Bring the group's own memory up to date."""
        ...


class Group:
    """Up to `rows` sequences of up to `capacity` positions, padded to `stride`.

    The memory is reserved at once and touched as it is needed; an emptied group gives it back.
    """

    def __init__(self, shape: LlamaShape, *, rows: int, capacity: int) -> None:
        self.capacity = capacity
        self.stride = 0
        self.owners: list[Key] = []
        self.lengths = np.zeros(rows, np.int64)
        self.resident: Resident | None = None  # the model's; forgotten when rows come, go or are padded otherwise
        self._shape = shape
        arrays = 2 * shape.layers
        size_bytes = arrays * rows * shape.kv_heads * capacity * shape.head_width * 4
        self._memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
        self._flat = np.frombuffer(self._memory, np.float32).reshape(arrays, -1)
        self._stack = self._view(0, 0)  # what is in use; it is asked for several times a step and seldom changes

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def stack(self) -> Stack:
        """[2 * layers, rows in use, kv_heads, stride, head_width]; each stack[i] is contiguous."""
        if self._stack.shape[1] != len(self) or self._stack.shape[3] != self.stride:
            self._stack = self._view(len(self), self.stride)
        return self._stack

    def positions(self) -> NDArray[np.int64]:
        """Positions held by each row in use."""
        return self.lengths[: len(self)]

    def append(self, owner: Key, kv: Kv) -> None:
        row, length = len(self), kv.shape[2]
        assert row < len(self.lengths)
        self._leave()
        self.owners.append(owner)
        self.lengths[row] = length
        self._restride(rows_held=row)
        self.stack[:, row, :, :length] = kv

    def grow(self) -> None:
        """Every row has one position more: the model wrote it where the group lies."""
        self.lengths[: len(self)] += 1

    def make_room(self) -> None:
        """See to it that every row can take one position more."""
        self._restride(rows_held=len(self))

    def view(self, owner: Key) -> Kv:
        """The owner's KV where it lies: good until the group changes."""
        row = self.owners.index(owner)
        if self.resident is not None:
            self.resident.settle()
        return self.stack[:, row, :, : int(self.lengths[row])]

    def drop(self, owner: Key) -> None:
        """The last row takes the place of the dropped one."""
        row, last = self.owners.index(owner), len(self) - 1
        self._leave()
        if row != last:
            length = self.lengths[last]
            self.stack[:, row, :, :length] = self.stack[:, last, :, :length]
            self.owners[row] = self.owners[last]
            self.lengths[row] = length
        self.owners.pop()
        if not self.owners:
            self.stride = 0
            self._memory.madvise(mmap.MADV_DONTNEED)

    def _leave(self) -> None:
        if self.resident is not None:
            self.resident.settle()
            self.resident = None

    def _restride(self, rows_held: int) -> None:
        """Pad to the longest row and one position; rows_held rows have content at the present stride."""
        needed = min(int(self.positions().max()) + 1, self.capacity)
        if needed <= self.stride <= 2 * needed + _STRIDE_TOKENS:
            return
        self._leave()
        wanted = min(self.capacity, -(-(needed + needed // 8) // _STRIDE_TOKENS) * _STRIDE_TOKENS)
        kept = min(wanted, self.stride)
        held, moved = self._view(rows_held, self.stride), self._view(rows_held, wanted)
        # The same memory: numpy copies overlapping views through a temporary, which array by array stays small.
        for old, new in zip(held, moved, strict=True):
            new[:, :, :kept] = old[:, :, :kept]
        self.stride = wanted

    def _view(self, rows: int, stride: int) -> Stack:
        axes = (rows, self._shape.kv_heads, stride, self._shape.head_width)
        size = rows * self._shape.kv_heads * stride * self._shape.head_width
        return self._flat[:, :size].reshape(len(self._flat), *axes)


class KvCache:
    """Places sequences in groups by length. Blocks are the batch's to account; this only has room for them."""

    def __init__(self, shape: LlamaShape, *, slots: int, tokens: int) -> None:
        smallest, *larger = _capacities(shape.context_tokens)
        self._groups = [Group(shape, rows=slots, capacity=smallest)]
        # What is longer than the capacity below: as many as there may be at once.
        rows = [min(slots, max(1, tokens * _GROUP_RATIO // capacity)) for capacity in larger]
        self._groups += [Group(shape, rows=n, capacity=capacity) for n, capacity in zip(rows, larger, strict=True)]
        self._at: dict[Key, Group] = {}

    def __contains__(self, owner: Key) -> bool:
        return owner in self._at

    def __len__(self) -> int:
        return len(self._at)

    def place(self, owner: Key, kv: Kv) -> None:
        """Take a copy of the sequence's KV [.., positions, ..]."""
        assert owner not in self._at
        group = next(group for group in self._groups if kv.shape[2] < group.capacity)
        group.append(owner, kv)
        self._at[owner] = group

    def view(self, owner: Key) -> Kv:
        """The sequence's KV where it lies: good until the cache changes."""
        return self._at[owner].view(owner)

    def drop(self, owner: Key) -> None:
        self._at.pop(owner).drop(owner)

    def lift(self, owner: Key) -> Kv:
        """Take the sequence out of its group, into an array of its own."""
        kv = self.view(owner).copy()
        self.drop(owner)
        return kv

    def groups(self) -> list[Group]:
        """Groups to decode, each with room for one position more in every row."""
        for group in self._groups:
            full = [
                owner for owner, length in zip(group.owners, group.positions(), strict=True) if length >= group.capacity
            ]
            for owner in full:
                self.place(owner, self.lift(owner))
        busy = [group for group in self._groups if len(group)]
        for group in busy:
            group.make_room()
        return busy

    def check_integrity(self) -> None:
        """Invariants, for tests: every sequence is in one row of one group and fits."""
        owners = [owner for group in self._groups for owner in group.owners]
        assert sorted(owners) == sorted(self._at)
        for group in self._groups:
            assert all(self._at[owner] is group for owner in group.owners)
            assert not len(group) or group.positions().max() <= group.stride <= group.capacity


def _capacities(context_tokens: int) -> list[int]:
    """Group capacities, ascending: the context, a quarter of it, ..."""
    capacities = [context_tokens]
    while capacities[0] > _SMALLEST_GROUP_TOKENS:
        capacities.insert(0, -(-capacities[0] // _GROUP_RATIO))
    return capacities
