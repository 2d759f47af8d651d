"""`headrace trace` on files as they are found: shared by several processes, cut off at the end, of others too."""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import runstate, targets, trace
from headrace.cli.main import main

TRACE, OTHER, REQUEST = "ab" * 16, "cd" * 16, "12" * 16
OPEN_METRICS = """\
# TYPE ttft histogram
ttft_bucket{le="0.5",model_name="m"} 3.0
ttft_bucket{le="1.0",model_name="m"} 4.0 # {request_id="r1",trace_id="t1"} 0.7 1000.0
ttft_bucket{le="+Inf",model_name="m"} 5.0 # {request_id="r2",trace_id="t2"} 9.0 1001.0
ttft_bucket{le="0.5",model_name="n"} 1.0 # {request_id="r3",trace_id="t3"} 0.1 1002.0
ttft_bucket{le="+Inf",model_name="n"} 1.0
# EOF
"""


def span(name: str, start_s: float, end_s: float, trace_id: str = TRACE, /, **attributes: Any) -> str:
    told = {"name": name, "trace_id": trace_id, "process": "p-0", "start_s": start_s, "end_s": end_s}
    return json.dumps(told | {"attributes": attributes})


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    spans = [
        span("prefill", 2.0, 3.0, TRACE, **{"headrace.request_id": REQUEST}),
        span("prefill", 2.0, 3.0, OTHER),
        span("encode", 1.0, 2.0, TRACE, **{"headrace.cached": True}),
        span("chat m", 0.0, 4.0, TRACE, **{"gen_ai.operation.name": "chat"}),
        span("decode", 3.0, 4.0)[:40],
    ]
    (tmp_path / "traces.jsonl").write_text("\n".join(spans))
    (tmp_path / "logs").mkdir()
    for process, at_s in (("decode-0", 7.5), ("qm-0", 7.0)):
        line = {
            "event": "stage",
            "time_s": at_s,
            "process": process,
            "trace_id": TRACE,
            "request_id": REQUEST,
            "part": 0,
        }
        stray = {"event": "stage", "time_s": 1.0, "process": process, "trace_id": OTHER, "why": TRACE}
        text = f"not JSON {TRACE}\n{json.dumps(line)}\n{json.dumps(stray)}\n"
        (tmp_path / f"logs/{process}.log").write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", [TRACE, REQUEST])
def test_a_trace_by_its_id_or_its_requests(data_dir: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", name, "--logs", "--data-dir", str(data_dir)]) == 0
    lines = capsys.readouterr().out.split("\n")
    stages = [line.split()[0] for line in lines if line.startswith("  ") and "+" in line]
    assert stages == ["gateway", "cached", "prefill", "first"]
    assert [line.split()[:4] for line in lines if " stage " in line] == [
        ["0.0", "ms", "qm-0", "stage"],
        ["500.0", "ms", "decode-0", "stage"],
    ]


def test_nothing_is_known_of_it(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "ff" * 16, "--data-dir", str(data_dir)]) == 1
    assert "HEADRACE_TRACE_FILE" in capsys.readouterr().out
    assert main(["trace", "--data-dir", str(data_dir)]) == 1
    assert runstate.NO_MESH in capsys.readouterr().out


def test_exemplars_of_each_models_buckets() -> None:
    found = [(one.over_s, one.bound, one.value_s, one.trace_id) for one in trace.exemplars(OPEN_METRICS, "ttft")]
    assert found == [(0.5, "1.0", 0.7, "t1"), (1.0, "+Inf", 9.0, "t2"), (0.0, "0.5", 0.1, "t3")]


def test_targets_go_by_their_jobs(tmp_path: Path) -> None:
    targets.write(tmp_path, {"qm-0": "h:1", "gateway-1": "h:2", "decode-12": "h:3"})
    groups = json.loads((tmp_path / "targets.json").read_text())
    assert [group["labels"]["job"] for group in groups] == ["queue-manager", "gateway", "decode"]
    targets.forget(tmp_path)
    targets.forget(tmp_path)
