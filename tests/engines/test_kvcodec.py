"""Packed KV: sizes to the byte, errors within half a step of each row, rows packed apart equal rows packed together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from headrace.engines.kvcodec import NotPackable, RowFormat

Float = NDArray[np.float32]
WIDTH = 8
numbers = st.floats(-1e4, 1e4, width=32)
rows_of = arrays.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(WIDTH)), elements=numbers)


def raw(dtype: str, rows: Float) -> bytearray:
    if dtype == "bfloat16":
        return bytearray((rows.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    return bytearray(rows.astype(dtype).tobytes())


def floats(dtype: str, data: bytearray) -> Float:
    if dtype == "bfloat16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(-1, WIDTH)
    return np.frombuffer(data, dtype).astype(np.float32).reshape(-1, WIDTH)


def travel(rows: RowFormat, data: bytearray) -> bytearray:
    packed, back = bytearray(rows.packed_bytes(len(data))), bytearray(len(data))
    rows.pack(memoryview(data), memoryview(packed))
    rows.unpack(memoryview(packed), memoryview(back))
    return back


# Half a quantisation step, and what the dtype itself rounds at the end.
@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-6), ("float16", 2**-11), ("bfloat16", 2**-8)])
@settings(max_examples=40, deadline=None)
@given(values=rows_of)
def test_no_number_is_off_by_more_than_half_a_step(dtype: str, rounding: float, values: Float) -> None:
    data = raw(dtype, values)
    before = floats(dtype, data)
    after = floats(dtype, travel(RowFormat.of(dtype, (2, 3, WIDTH)), data))
    absmax = np.abs(before).max(axis=1, keepdims=True)
    # Below 2**-14 float16 has fewer bits: the smallest step there.
    assert (np.abs(after - before) <= absmax / 254 * (1 + 1e-5) + absmax * rounding + 2**-24).all()
    assert (after[absmax[:, 0] == 0] == 0).all()


@settings(max_examples=40, deadline=None)
@given(values=rows_of, cut=st.integers(0, 40))
def test_rows_packed_apart_are_rows_packed_together(values: Float, cut: int) -> None:
    rows, data = RowFormat.of("float32", (WIDTH, WIDTH)), raw("float32", values)
    whole = bytearray(rows.packed_bytes(len(data)))
    rows.pack(memoryview(data), memoryview(whole))
    at = min(cut, len(values))
    parts = bytearray(len(whole))
    for part in (slice(0, at), slice(at, len(values))):
        source = memoryview(data)[part.start * rows.row_bytes : part.stop * rows.row_bytes]
        into = memoryview(parts)[part.start * rows.packed_row_bytes : part.stop * rows.packed_row_bytes]
        rows.pack(source, into)
    assert parts == whole


def test_sizes_to_the_byte() -> None:
    smollm2 = RowFormat.of("float32", (60, 3, 110, 64))
    raw_bytes = 60 * 3 * 110 * 64 * 4
    assert smollm2.packed_bytes(raw_bytes) == 60 * 3 * 110 * (64 + 4)
    assert smollm2.raw_bytes(smollm2.packed_bytes(raw_bytes)) == raw_bytes
    assert RowFormat.of("bfloat16", (1, 128)).packed_bytes(256) == 132


@pytest.mark.parametrize("many", [1, 20_000])
def test_many_rows_as_one(many: int) -> None:
    """More rows than are packed at once."""
    values = np.random.default_rng(7).standard_normal((many, WIDTH)).astype(np.float32)
    after = floats("float32", travel(RowFormat.of("float32", (1, WIDTH)), raw("float32", values)))
    assert np.abs(after - values).max() <= np.abs(values).max() / 250


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    """An importer looks for such numbers and refuses them: packing must not hide them."""
    values = np.ones((3, WIDTH), np.float32)
    values[1, 2] = bad
    after = floats("float32", travel(RowFormat.of("float32", (1, WIDTH)), raw("float32", values)))
    assert not np.isfinite(after[1].sum())
    assert np.isfinite(after[[0, 2]]).all()


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (24,)), ("uint8", (2, 8)), ("float32", (8,)), ("int64", (2, 8)), ("float32", (2, 0))]
)
def test_what_has_no_rows_of_numbers_is_refused(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(NotPackable):
        RowFormat.of(dtype, shape)


def test_torn_rows_are_refused() -> None:
    rows = RowFormat.of("float32", (1, WIDTH))
    for size in (0, 1, rows.packed_row_bytes - 1, rows.packed_row_bytes + 1):
        with pytest.raises(NotPackable):
            rows.raw_bytes(size)
