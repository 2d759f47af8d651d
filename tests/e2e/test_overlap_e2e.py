"""Requests of several pictures whose prefill begins on the first ones: the same tokens, whatever befalls them."""

import os
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.cli.plan import MeshConfig
from headrace.cli.questions import image
from headrace.cli.supervisor import Mesh
from headrace.client import operator
from tests.e2e.asking import Answer, ask, picture, request
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import small_mesh, until_heard

OVERLAP = Path(__file__).parent / "overlap.toml"
PICTURES = [picture(number) for number in range(8)]

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def started(config: MeshConfig) -> AsyncIterator[Mesh]:
    async with Mesh(config) as mesh:
        await until_heard(mesh)
        yield mesh
        await assert_free(mesh, 8.0)


async def asked(mesh: Mesh, images: list[bytes], max_tokens: int = 12) -> Answer:
    answer = await ask(mesh.grpc_addr, request("what do they show?", images=images, max_tokens=max_tokens))
    assert (answer.reason, answer.faults) == ("length", [])
    return answer


async def begun_early(mesh: Mesh) -> int:
    """Requests whose prefill began before all of their media were there."""
    told = await operator.inspect(mesh.addresses.grpc["qm-0"])
    return int(dict(told.operations).get("overlap", 0))


async def switched_off(mesh: Mesh) -> None:
    await mesh.restart("qm-0", {"HEADRACE_OVERLAP": "off"})
    await until_heard(mesh)


async def test_prefill_begins_before_the_last_picture_is_encoded(tmp_path: Path) -> None:
    environment = {"HEADRACE_ENCODER_CACHE_MB": "0", "HEADRACE_PREFIX_CACHE_MB": "0"}
    async with started(small_mesh(tmp_path, profile=str(OVERLAP), environment=environment)) as mesh:
        early = await asked(mesh, PICTURES)
        assert await begun_early(mesh) == 1
        assert early.end is not None
        encoded_s = max(span.end_s for span in early.end.timeline if span.stage == "encode")
        [prefill] = [span for span in early.end.timeline if span.stage == "prefill"]
        assert prefill.start_s < encoded_s < prefill.end_s
        parts = sorted(span.part for span in early.end.timeline if span.stage == "encode")
        assert parts == list(range(8)), "the timeline tells of every part, once"
        await switched_off(mesh)
        late = await asked(mesh, PICTURES)
        assert await begun_early(mesh) == 0
        assert early.tokens == late.tokens


async def test_an_encoder_dies_in_the_middle(tmp_path: Path) -> None:
    environment = {"HEADRACE_ENCODER_CACHE_MB": "0"}
    async with started(small_mesh(tmp_path, profile=str(OVERLAP), encoders=2, environment=environment)) as mesh:
        undisturbed = await asked(mesh, PICTURES)
        fault = {"HEADRACE_FAULT": "encode.published:3:kill"}
        await mesh.restart("encoder-1", fault)
        await until_heard(mesh)
        pid = mesh.pid("encoder-1")
        assert (await asked(mesh, PICTURES)).tokens == undisturbed.tokens
        assert mesh.pid("encoder-1") != pid, "it died, and another attempt encoded anew what it had"
        assert await begun_early(mesh) >= 2


def broken() -> bytes:
    """A PNG whose header and checksums are right, and whose pixels are not there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 256, 256, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.model
@pytest.mark.timeout(180)
async def test_the_default_model_says_the_same_and_names_a_broken_picture(tmp_path: Path) -> None:
    environment = {"HEADRACE_ENCODER_CACHE_MB": "0", "HEADRACE_PREFIX_CACHE_MB": "0"}
    config = MeshConfig(data_dir=tmp_path, cores=len(os.sched_getaffinity(0)), environment=environment)
    async with started(config) as mesh:
        names = ("digit-0", "digit-3", "digit-5", "digit-7", "red-circle-top-left", "blue-square-bottom-right")
        shown = [image(name) for name in names]
        early = await asked(mesh, shown, max_tokens=24)
        assert await begun_early(mesh) == 1
        failed = await ask(mesh.grpc_addr, request("and these?", images=[*shown[:5], broken()]))
        assert failed.end is not None
        assert (failed.reason, failed.end.failure.field) == ("error", "media[5]"), failed
        assert await begun_early(mesh) == 2
        await switched_off(mesh)
        late = await asked(mesh, shown, max_tokens=24)
        assert await begun_early(mesh) == 0
        assert early.tokens == late.tokens
