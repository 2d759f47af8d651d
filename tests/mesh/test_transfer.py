"""Tensors over both paths: any bytes arrive whole; corrupt, truncated, dropped and reused ones are refused."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.types import TensorHandle
from headrace.mesh import rpc, tensor_files
from headrace.mesh.errors import TransferError
from headrace.mesh.transfer import CHUNK_BYTES, Draft, Tensor, TensorStore


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[TensorStore]:
    store = TensorStore(tmp_path / "shm", "prefill-0", "aa01", "host-a", limit_bytes=64 << 20)
    server = await rpc.serve("127.0.0.1:0", store.servicer().add_to, ["headrace.v1.TransferService"])
    store.grpc_address = f"127.0.0.1:{server.port}"
    yield store
    await server.stop(0)
    await store.close()


@pytest.fixture(params=["mapped", "grpc"])
async def peer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TensorStore]:
    store = TensorStore(tmp_path / "shm", "decode-0", "bb01", "host-a", force_grpc=request.param == "grpc")
    yield store
    await store.close()


def put(store: TensorStore, tensor_id: str, data: bytes) -> TensorHandle:
    return seal(store, fill(store.create(tensor_id, len(data)), data))


def fill(draft: Draft, data: bytes) -> Draft:
    draft.buffer[:] = data
    draft.ready(len(data))
    return draft


def seal(store: TensorStore, draft: Draft) -> TensorHandle:
    return store.seal(draft, Tensor("uint8", (draft.size_bytes,), "bytes", 1))


SIZES = [1, 5, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17]


@pytest.mark.parametrize("size", SIZES)
async def test_every_size_arrives_whole(owner: TensorStore, peer: TensorStore, size: int) -> None:
    data = os.urandom(size)
    handle = put(owner, "kv.r1.1", data)
    fetched = await peer.fetch(handle)
    assert bytes(fetched.buffer) == data
    assert fetched.buffer.readonly
    fetched.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=4096), flip=st.integers(0, 1 << 15))
def test_any_flipped_bit_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, flip: int) -> None:
    store = TensorStore(tmp_path_factory.mktemp("shm"), "p", "a", "h")
    handle = put(store, "x", data)

    async def check() -> None:
        fetched = await store.fetch(handle)
        assert bytes(fetched.buffer) == data
        fetched.close()
        at, bit = divmod(flip % (8 * len(data)), 8)
        fd = os.open(handle.path, os.O_RDWR)
        os.pwrite(fd, bytes([data[at] ^ (1 << bit)]), at)
        os.close(fd)
        with pytest.raises(TransferError, match="checksum"):
            await store.fetch(handle)
        await store.close()

    asyncio.run(check())


async def test_a_truncated_file_is_refused(owner: TensorStore, peer: TensorStore) -> None:
    handle = put(owner, "kv.r1.1", os.urandom(300_000))
    os.truncate(handle.path, 200_000)
    with pytest.raises(TransferError):
        await peer.fetch(handle)


@pytest.mark.parametrize(
    "wrong", [{"size_bytes": 99}, {"size_bytes": 101}, {"xxh3": 1}, {"size_bytes": 0}, {"size_bytes": 1 << 60}]
)
async def test_a_wrong_handle_is_refused(owner: TensorStore, peer: TensorStore, wrong: dict[str, int]) -> None:
    handle = put(owner, "kv.r1.1", os.urandom(100))
    with pytest.raises(TransferError):
        await peer.fetch(replace(handle, **wrong))  # type: ignore[arg-type]


async def test_dropped_or_of_another_process_is_refused(owner: TensorStore, peer: TensorStore) -> None:
    handle = put(owner, "kv.r1.1", b"x" * 100)
    with pytest.raises(TransferError):
        await peer.fetch(replace(handle, incarnation="cc01", path=handle.path + "x"))
    owner.drop("kv.r1.1")
    with pytest.raises(TransferError):
        await peer.fetch(handle)
    assert (owner.files(), owner.handles(), owner.held_bytes) == ([], {}, 0)


async def test_a_dead_owner_is_refused(owner: TensorStore, peer: TensorStore) -> None:
    handle = replace(put(owner, "kv.r1.1", b"x"), path="/nowhere", grpc_address="127.0.0.1:1")
    with pytest.raises(TransferError, match="UNAVAILABLE"):
        await peer.fetch(handle)


async def test_a_path_outside_the_directory_is_never_opened(owner: TensorStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 100)
    handle = put(owner, "kv.r1.1", b"x" * 100)
    outside = replace(handle, path=str(secret), id="other", grpc_address="")
    with pytest.raises(TransferError, match="gone"):
        await owner.fetch(outside)


async def test_nobody_sees_a_draft(owner: TensorStore) -> None:
    draft = owner.create("kv.r1.1", 10)
    assert owner.files() == []
    assert owner.handles() == {}
    seal(owner, fill(draft, b"0123456789"))
    assert [path.name for path in owner.files()] == ["prefill-0.aa01.kv.r1.1"]


async def test_a_read_file_is_never_reused(owner: TensorStore, tmp_path: Path) -> None:
    first = await owner.fetch(put(owner, "one", b"1" * 1000))
    array = np.frombuffer(first.buffer, np.uint8)
    owner.drop("one")
    put(owner, "two", b"2" * 1000)
    assert (array == ord("1")).all()
    first.close()  # the array still shows it
    owner.drop("two")
    put(owner, "three", b"3" * 1000)
    assert (array == ord("1")).all()


async def test_pages_are_reused_when_nobody_reads(owner: TensorStore) -> None:
    inodes = set()
    for i in range(10):
        handle = put(owner, f"kv.{i}", os.urandom(100_000 + i))
        (await owner.fetch(handle)).close()
        inodes.add(os.stat(handle.path).st_ino)
        owner.drop(handle.id)
    assert len(inodes) == 1


async def test_the_bound_on_bytes_holds(owner: TensorStore) -> None:
    for i in range(4):
        owner.create(f"kv.{i}", 15 << 20)
    with pytest.raises(TransferError, match="no room"):
        owner.create("kv.4", 15 << 20)
    owner.drop("kv.0")
    owner.create("kv.4", 15 << 20)


async def test_ids_cannot_leave_the_directory(owner: TensorStore) -> None:
    draft = fill(owner.create("../x", 1), b"x")
    with pytest.raises(TransferError, match="name"):
        seal(owner, draft)


def test_a_killed_process_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    directory = tmp_path / "shm"
    program = """
import sys, time; from pathlib import Path
from headrace.mesh.transfer import Tensor, TensorStore
store = TensorStore(Path(sys.argv[1]), "prefill-1", "dead", "h")
draft = store.create("kv.a", 10); draft.ready(10)
store.seal(draft, Tensor("u1", (10,), "b", 1)); store.create("kv.b", 10)
print("made", flush=True); time.sleep(60)
"""
    living = tensor_files.FileStore(directory, "decode-0", "live", 1 << 20)
    living.publish(tensor_files.make(living.draft_path(), 10), "kv.c")
    child = subprocess.Popen([sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert tensor_files.sweep(directory) == 0
    child.kill()
    child.wait()
    child.stdout.close()
    assert tensor_files.sweep(directory) == 1
    assert sorted(path.name for path in directory.iterdir()) == [".lock.decode-0.live", "decode-0.live.kv.c"]
    living.close()
    assert list(directory.iterdir()) == []
