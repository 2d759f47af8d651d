"""The questions of `headrace characterize --live`, put to a small mesh whose engine only keeps a profile's pace."""

import time

import pytest

from headrace.characterize import measured
from headrace.characterize.errors import LiveError
from headrace.characterize.live import Plan, measure
from headrace.cli.supervisor import Mesh

SMALL = Plan(
    repeats=2,
    sides_px=(32, 64),
    images=(1, 2),
    at_once=(1, 4),
    rounds=1,
    busy=(0.0, 0.5),
    seconds=1.0,
    words=8,
    max_tokens=4,
    timeout_s=20.0,
)


async def test_a_mesh_is_measured_through_its_api(mesh: Mesh) -> None:
    said: list[str] = []
    began_s = time.monotonic()
    found = await measure([mesh.grpc_addr], SMALL, 1, said.append)
    assert time.monotonic() - began_s < 30
    assert found.failures == ()
    assert list(found.alone) == ["text", "1 x 32 px", "1 x 64 px", "2 x 32 px"]
    for kind, answers in found.alone.items():
        assert len(answers) == SMALL.repeats
        for answer in answers:
            assert answer.tokens == SMALL.max_tokens
            assert 0 < answer.ttft_s <= answer.end_s
            assert sum(answer.stages.values()) == pytest.approx(answer.ttft_s, abs=1e-6)
            assert answer.stages["prefill"] > 0.005, "the profile's 8 ms an iteration"
            assert (answer.stages["encode"] > 0) == (kind != "text"), answer.spans
            assert (answer.media_tokens > 0) == (kind != "text")
    # An iteration takes 8 ms whatever runs in it: four at once are nearly four times as many.
    assert found.many["text"][4].rps > 1.3 * found.many["text"][1].rps
    rates = list(found.beside)
    assert rates[0] == 0.0 < rates[1]
    assert not found.beside[0.0].images
    assert found.beside[rates[1]].images
    document = measured.document(found, ["decode-0 (decode)"], "encoders stand apart")
    assert [section.name for section in document.sections] == ["stages", "batching", "interference"]
    assert {section.origin for section in document.sections} == {"measured"}
    assert document.data["origin"] == "measured"
    assert document.data["alone"]["text"]["requests"] == SMALL.repeats
    assert said[0].startswith("profile-tiny")


async def test_nobody_answers() -> None:
    with pytest.raises(LiveError, match="does not answer"):
        await measure(["127.0.0.1:1"], SMALL, 1, lambda text: None)
