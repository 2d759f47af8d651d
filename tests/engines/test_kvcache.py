"""The KV cache against a dictionary of arrays: whatever is placed, grown, moved and dropped, every bit stays."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from headrace.core.types import Key
from headrace.engines.families.llama import LlamaShape
from headrace.engines.kvcache import Kv, KvCache, new_kv

SHAPE = LlamaShape(2, 4, 2, 1, 2, context_tokens=2048, rope_base=1e4, norm_epsilon=1e-5)
SLOTS, TOKENS = 6, 4096


class CacheMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32 - 1))
    def start(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.cache = KvCache(SHAPE, slots=SLOTS, tokens=TOKENS)
        self.held: dict[Key, NDArray[np.float32]] = {}
        self.names = 0

    @rule(length=st.one_of(st.integers(1, 200), st.integers(500, 1500)))
    def place(self, length: int) -> None:
        tokens = sum(kv.shape[2] for kv in self.held.values())
        if len(self.held) == SLOTS or tokens + length > TOKENS:
            return  # the batch's accounting keeps these away
        kv, self.names = self.noise(length), self.names + 1
        key = Key(f"r{self.names}", 1)
        self.cache.place(key, kv)
        self.held[key] = kv.copy()
        kv[:] = np.nan  # the cache has a copy

    @rule(steps=st.sampled_from([1, 1, 70]))
    def decode(self, steps: int) -> None:
        for _ in range(steps):
            if sum(kv.shape[2] + 1 for kv in self.held.values()) > TOKENS:
                return
            for group in self.cache.groups():
                new = self.noise(len(group))  # one position for each row
                for row, at in enumerate(group.positions()):
                    group.stack[:, row, :, at] = new[:, :, row]
                group.grow()
                for row, owner in enumerate(group.owners):
                    self.held[owner] = np.concatenate([self.held[owner], new[:, :, row : row + 1]], axis=2)

    @rule(pick=st.integers(0, SLOTS - 1))
    def drop(self, pick: int) -> None:
        for key in list(self.held)[pick : pick + 1]:
            self.cache.drop(key)
            del self.held[key]

    @rule(pick=st.integers(0, SLOTS - 1))
    def lift_and_place_again(self, pick: int) -> None:
        for key in list(self.held)[pick : pick + 1]:
            self.cache.place(key, self.cache.lift(key))

    @invariant()
    def every_bit_is_there(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.cache.check_integrity()
        assert len(self.cache) == len(self.held)
        for key, kv in self.held.items():
            np.testing.assert_array_equal(self.cache.view(key), kv)

    def noise(self, length: int) -> Kv:
        kv = new_kv(SHAPE, length)
        kv[:] = self.random.normal(size=kv.shape)
        return kv


CacheMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestCache = CacheMachine.TestCase


def test_a_decode_batch_is_a_contiguous_view_of_the_first_rows() -> None:
    cache = KvCache(SHAPE, slots=SLOTS, tokens=TOKENS)
    for row in range(3):
        cache.place(Key(f"r{row}", 1), np.full((4, 1, 10 + row, 2), row, np.float32))
    cache.drop(Key("r0", 1))
    (group,) = cache.groups()
    assert group.owners == [Key("r2", 1), Key("r1", 1)]
    assert all(array.flags.c_contiguous and len(array) == 2 for array in group.stack)


def test_rows_of_very_different_lengths_do_not_share_a_padding() -> None:
    cache = KvCache(SHAPE, slots=SLOTS, tokens=TOKENS)
    cache.place(Key("short", 1), np.zeros((4, 1, 20, 2), np.float32))
    cache.place(Key("long", 1), np.zeros((4, 1, 1500, 2), np.float32))
    assert [group.stride for group in cache.groups()] == [64, 1728]


def test_many_short_rows_fit_into_few_tokens() -> None:
    """Less than the smallest group's capacity in all, shared by as many sequences as there are slots."""
    cache = KvCache(SHAPE, slots=SLOTS, tokens=96)
    for row in range(SLOTS):
        cache.place(Key(f"r{row}", 1), np.zeros((4, 1, 16, 2), np.float32))
    assert len(cache) == SLOTS
