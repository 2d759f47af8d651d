"""Tensors read while they are written, over both paths: whole and equal at the end, or refused; no endless waits."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.core.types import TensorHandle
from headrace.mesh import rpc
from headrace.mesh.errors import TransferError
from headrace.mesh.tensor_wire import CHUNK_BYTES, Piece, from_wire, to_wire
from headrace.mesh.transfer import Draft, Tensor, TensorStore, verified
from headrace.v1 import transfer_pb2

pytestmark = pytest.mark.timeout(30)
BYTES = Tensor("uint8", (1,), "bytes", 1)


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[TensorStore]:
    store = TensorStore(tmp_path / "shm", "prefill-0", "aa01", "host-a")
    server = await rpc.serve("127.0.0.1:0", store.servicer().add_to, ["headrace.v1.TransferService"])
    store.grpc_address = f"127.0.0.1:{server.port}"
    yield store
    await server.stop(0)
    await store.close()


@pytest.fixture(params=["mapped", "grpc"])
async def peer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TensorStore]:
    force = request.param == "grpc"
    store = TensorStore(tmp_path / "shm", "decode-0", "bb01", "host-a", force_grpc=force, silence_s=0.5)
    yield store
    await store.close()


def half(store: TensorStore, data: bytes) -> tuple[Draft, TensorHandle]:
    draft = store.create("kv.r1.1", len(data))
    draft.buffer[:] = data
    draft.ready(len(data) // 2)
    return draft, store.offer(draft, BYTES)


@pytest.mark.parametrize("size", [2, 100_000, 3 * CHUNK_BYTES + 17])
async def test_what_grows_arrives_whole(owner: TensorStore, peer: TensorStore, size: int) -> None:
    data = os.urandom(size)
    draft = owner.create("kv.r1.1", size)
    offered = owner.offer(draft, BYTES)
    following = asyncio.create_task(peer.follow(offered))
    for stop in sorted({1, size // 3, size // 2, size}):
        await asyncio.sleep(0.01)
        assert not following.done()
        draft.buffer[draft.ready_bytes : stop] = data[draft.ready_bytes : stop]
        draft.ready(stop)
    sealed = owner.seal(draft, BYTES)
    fetched = verified(sealed, await following, offered)
    assert bytes(fetched.buffer) == data
    assert fetched.buffer.readonly
    assert sealed.path != offered.path
    fetched.close()


async def test_an_offer_that_comes_after_the_seal(owner: TensorStore, peer: TensorStore) -> None:
    data = os.urandom(100_000)
    draft, offered = half(owner, data)
    draft.ready(len(data))
    sealed = owner.seal(draft, BYTES)
    assert bytes(verified(sealed, await peer.follow(offered), offered).buffer) == data


async def test_a_corrupted_byte_is_refused(owner: TensorStore, peer: TensorStore) -> None:
    draft, offered = half(owner, bytes(300_000))
    draft.buffer[7] = 1  # after it was said to be final, and summed up
    draft.ready(300_000)
    pulled = await peer.follow(offered)
    with pytest.raises(TransferError, match="checksum"):
        verified(owner.seal(draft, BYTES), pulled, offered)


@pytest.mark.parametrize(
    "other",
    [{"id": "kv.r1.2"}, {"incarnation": "cc"}, {"size_bytes": 7}, {"length": 2}, {"layout": "else"}, {"codec": "int8"}],
    ids=lambda other: next(iter(other)),
)
async def test_another_tensor_than_was_offered_is_refused(owner: TensorStore, other: dict[str, Any]) -> None:
    draft, offered = half(owner, b"x" * 100)
    draft.ready(100)
    pulled = await owner.follow(offered)
    with pytest.raises(TransferError, match="not what was offered"):
        verified(owner.seal(draft, BYTES), pulled, replace(offered, **other))


async def test_dropped_in_the_middle_is_told_at_once(owner: TensorStore, peer: TensorStore) -> None:
    _, offered = half(owner, b"x" * 100_000)
    following = asyncio.create_task(peer.follow(offered))
    await asyncio.sleep(0.05)
    owner.drop(offered.id)
    began_s = time.monotonic()
    with pytest.raises(TransferError, match="dropped"):
        await following
    assert time.monotonic() - began_s < 0.4, "by the owner's word, not by its silence"
    assert owner.held_bytes == 0


async def test_what_grows_no_more_is_given_up(owner: TensorStore, peer: TensorStore) -> None:
    _, offered = half(owner, b"x" * 100)
    with pytest.raises(TransferError, match=r"0\.5 s"):
        await peer.follow(offered)


async def test_a_dropped_draft_that_is_read_is_not_written_again(owner: TensorStore, tmp_path: Path) -> None:
    reader = TensorStore(tmp_path / "shm", "decode-0", "bb01", "host-a", silence_s=0.3)
    _, offered = half(owner, b"1" * 100_000)
    following = asyncio.create_task(reader.follow(offered))
    await asyncio.sleep(0.05)
    inode = os.stat(offered.path).st_ino
    owner.drop(offered.id)
    again = owner.create("kv.r2.1", 100_000)
    assert again.buffer.nbytes
    assert os.stat(again.path).st_ino != inode
    with pytest.raises(TransferError):
        await following
    await reader.close()


async def test_a_spare_does_not_pass_for_ready(owner: TensorStore) -> None:
    draft, _ = half(owner, b"1" * 1000)
    draft.ready(1000)
    owner.seal(draft, BYTES)
    owner.drop("kv.r1.1")
    again = owner.create("kv.r2.1", 1000)  # the same pages
    following = asyncio.create_task(owner.follow(owner.offer(again, BYTES)))
    await asyncio.sleep(0.05)
    assert not following.done()
    following.cancel()


async def test_only_drafts_of_the_owner_are_opened(owner: TensorStore, tmp_path: Path) -> None:
    secret = tmp_path / "shm" / ".other.process.1"
    secret.write_bytes(b"x" * 1000)
    _, offered = half(owner, b"x" * 100)
    with pytest.raises(TransferError, match="gone"):
        await owner.follow(replace(offered, path=str(secret), grpc_address=""))


OWNER = """
import asyncio, json, sys
from dataclasses import asdict
from pathlib import Path
from headrace.mesh import rpc
from headrace.mesh.transfer import Tensor, TensorStore
async def main():
    store = TensorStore(Path(sys.argv[1]), "prefill-9", "dead", "host-a")
    server = await rpc.serve("127.0.0.1:0", store.servicer().add_to, ["headrace.v1.TransferService"])
    store.grpc_address = f"127.0.0.1:{server.port}"
    draft = store.create("kv.r1.1", 3 << 20)
    draft.ready(1 << 20)
    print(json.dumps(asdict(store.offer(draft, Tensor("uint8", (1,), "bytes", 1)))), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def owner_process(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", OWNER, str(directory)], stdout=subprocess.PIPE)


@pytest.mark.parametrize("path", ["mapped", "grpc"])
async def test_an_owner_killed_in_the_middle_is_noticed(tmp_path: Path, path: str) -> None:
    store = TensorStore(tmp_path / "shm", "decode-0", "bb01", "host-a", force_grpc=path == "grpc")
    process = owner_process(tmp_path / "shm")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    following = asyncio.create_task(store.follow(TensorHandle(**(told | {"shape": tuple(told["shape"])}))))
    await asyncio.sleep(0.2)
    assert not following.done()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    began_s = time.monotonic()
    with pytest.raises(TransferError, match="gone" if path == "mapped" else "UNAVAILABLE"):
        await following
    assert time.monotonic() - began_s < 2.0
    await store.close()


async def test_what_is_kept_in_memory_is_served(owner: TensorStore, peer: TensorStore) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 3)
    handle = owner.keep("emb.r1.1.0", memoryview(data), 0, BYTES)
    with pytest.raises(TransferError, match="checksum"):
        await peer.fetch(handle)
    import xxhash

    handle = owner.keep("emb.r1.1.0", memoryview(data), xxhash.xxh3_64_intdigest(data), BYTES)
    assert bytes((await peer.fetch(handle)).buffer) == data
    assert (owner.files(), owner.held_bytes, handle.path) == ([], len(data), "")
    owner.drop(handle.id)
    with pytest.raises(TransferError):
        await peer.fetch(handle)


@pytest.mark.parametrize("offset", [0, 1, 127, 128, CHUNK_BYTES, 8 << 30])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_pieces_are_what_protobuf_writes(offset: int, size: int) -> None:
    data = os.urandom(size)
    message = transfer_pb2.Chunk(offset=offset, data=data).SerializeToString()
    assert to_wire(Piece(offset, memoryview(data))) == message
    piece = from_wire(message)
    assert (piece.offset, bytes(piece.data)) == (offset, data)


def test_a_field_that_is_new_to_us_is_passed_over() -> None:
    message = transfer_pb2.Chunk(offset=5, data=b"abc").SerializeToString() + b"\x18\x01"
    piece = from_wire(message)
    assert (piece.offset, bytes(piece.data)) == (5, b"abc")
