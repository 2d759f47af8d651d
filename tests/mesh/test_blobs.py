"""Blobs: durable, named by content, refused when corrupt, swept when nobody knows their request."""

import asyncio
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from headrace.core.errors import NotFound, StageError
from headrace.mesh.blobs import DirectoryBlobs
from headrace.mesh.files import FileStore

ONE, TWO = "1" * 32, "2" * 32


async def test_put_get_drop(tmp_path: Path) -> None:
    blobs, other_process = DirectoryBlobs(tmp_path), DirectoryBlobs(tmp_path)
    data = os.urandom(100_000)
    sha256 = await blobs.put(ONE, data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert await other_process.get(ONE, sha256) == data
    with pytest.raises(NotFound):
        await blobs.get(TWO, sha256)
    await blobs.drop(ONE)
    await blobs.drop(ONE)
    with pytest.raises(NotFound):
        await blobs.get(ONE, sha256)
    assert list((tmp_path / "blobs").iterdir()) == []


async def test_the_same_part_twice_is_one_object(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    names = await asyncio.gather(*[blobs.put(ONE, b"same") for _ in range(8)])
    assert len(set(names)) == 1
    assert await blobs.count() == 1
    assert len(list((tmp_path / "blobs" / ONE).iterdir())) == 1


async def test_a_corrupt_blob_is_refused(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    sha256 = await blobs.put(ONE, b"picture")
    (tmp_path / "blobs" / ONE / sha256).write_bytes(b"pictura")
    with pytest.raises(StageError, match="corrupt"):
        await blobs.get(ONE, sha256)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64])
async def test_names_are_hashes(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        await DirectoryBlobs(tmp_path).get(ONE, name)


async def test_sweep_takes_what_is_old_and_unknown(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    for request_id in (ONE, TWO, "3" * 32):
        await blobs.put(request_id, b"x")
    for request_id in (ONE, TWO):
        os.utime(tmp_path / "blobs" / request_id, (0, 0))
    assert await blobs.sweep({ONE}, older_than_s=60.0) == 1
    assert sorted(path.name for path in (tmp_path / "blobs").iterdir()) == [ONE, "3" * 32]


async def test_a_request_dropped_while_the_sweep_looks_is_passed_over(tmp_path: Path) -> None:
    """Drops and sweeps run in threads of their own: the folder may go between the two looks at it."""

    class Dropped:
        def __contains__(self, request_id: object) -> bool:
            shutil.rmtree(tmp_path / "blobs" / str(request_id))
            return False

    blobs = DirectoryBlobs(tmp_path)
    await blobs.put(ONE, b"x")
    assert await blobs.sweep(Dropped(), older_than_s=60.0) == 0


async def test_what_goes_while_it_is_counted_is_no_error(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)

    async def come_and_go(request_id: str) -> None:
        for _ in range(40):
            await blobs.put(request_id, b"x")
            await blobs.drop(request_id)

    async def count() -> None:
        for _ in range(400):
            assert 0 <= await blobs.count() <= 4

    await asyncio.gather(count(), *[come_and_go(f"{number:032x}") for number in range(4)])
    assert await blobs.count() == 0


async def test_a_file_that_goes_before_the_sweep_looks_at_it_is_not_the_sweeps(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    gone = tmp_path / "files" / ONE
    gone.symlink_to(tmp_path / "nowhere")  # it is listed, and is not there
    assert await files.sweep((), older_than_s=60.0) == 0
