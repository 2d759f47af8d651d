"""The overhead bench but for its meshes: which modes there are, and how the length predictor's cost is told."""

from typing import Any

from headrace.predictor.model import lacking
from loadtest.benches.overhead import MODES, POINTS, WITH, WITHOUT, predictor


def rows(req_s: float, cpu_ms: float) -> list[dict[str, Any]]:
    return [
        {
            "concurrency": concurrency,
            "max_tokens": max_tokens,
            "req_s": req_s * concurrency,
            "ttft_p50_ms": 2.0,
            "ttft_p99_ms": 5.0,
            "cpu_ms_per_request": {"qm-0": cpu_ms, "gateway-0": 0.5},
        }
        for concurrency, max_tokens in POINTS
    ]


def test_with_and_without_the_predictor_differ_by_it_alone() -> None:
    modes = {mode.name: mode for mode in MODES}
    one, other = modes[WITH], modes[WITHOUT]
    assert (one.client, one.colocate, one.sync_always) == (other.client, other.colocate, other.sync_always)
    assert other.environment == {"HEADRACE_PREDICT": "off"}
    assert {each.environment["HEADRACE_PREDICT"] for each in MODES if each is not other} == {
        "auto" if lacking() else "on"
    }


def test_each_point_is_told_with_and_without() -> None:
    points = predictor(rows(100.0, 0.4), rows(110.0, 0.3))
    assert [(each["concurrency"], each["max_tokens"]) for each in points] == list(POINTS)
    assert [each["req_s"] for each in points] == [{"on": 100.0 * c, "off": 110.0 * c} for c, _ in POINTS]
    assert {each["queue_manager_cpu_ms_per_request"]["on"] for each in points} == {0.4}
    assert {each["queue_manager_cpu_ms_per_request"]["off"] for each in points} == {0.3}
