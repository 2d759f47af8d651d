"""The command as a user types it: a small scenario and a small trace through real processes; mistakes told at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli.main import main

SCENARIO = """
about = "A minute of text"
model = "llama-3.2-11b-vision"
duration_s = 20
drain_s = 30

[workload]
kind = "generated"
generator = "text"
rate_rps = 3

[classes.interactive]
ttft_s = 5

[[fleet.pools]]
name = "llm"
stages = ["prefill", "decode"]
gpu = "a100"
tp = 4
"""
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02}.5,{200 + second},20\n" for second in range(30)
)
KEYS = {
    *("requests", "finished", "wall_s", "sim_requests_per_s", "ttft_p50_s", "ttft_p99_s", "tbt_p50_s", "tbt_p99_s"),
    *("jct_mean_s", "jct_p99_s", "attainment", "goodput_rps", "gpu_hours", "joules"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "minute.toml").write_text(SCENARIO)
    (tmp_path / "trace.csv").write_text(TRACE)
    return tmp_path


def simulate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.cli.main", "simulate", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)


def test_json_is_the_last_line_and_the_page_is_written(folder: Path) -> None:
    words = ("minute.toml", "--policy", "fcfs", "--seed", "1", "2", "--set", "fleet.pools.llm.count=2", "--json")
    done = simulate(folder, *words)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert {"machine", "date", "commit", "seeds", "command"} <= set(found)
    assert found["command"] == f"headrace simulate {' '.join(words)}"
    assert found["seeds"] == [1, 2]
    assert set(found["policies"]["fcfs"]) >= KEYS
    assert found["policies"]["fcfs"]["finished"] > 0
    assert "report: minute.html" in done.stderr
    assert "fleet.pools.llm.count = 2" in (folder / "minute.html").read_text()


def test_autoscalers_are_compared_and_tell_their_decisions(folder: Path) -> None:
    words = ("--autoscale", "off", "--autoscale", "headrace", "--set", "autoscale.gpus_max=8", "duration_s=150")
    done = simulate(folder, "minute.toml", *words, "fleet.pools.llm.count=2", "fleet.pools.llm.start_s=5", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["policies"]
    assert list(found) == ["fcfs", "fcfs / headrace"]
    assert "decisions" not in found["fcfs"]
    assert found["fcfs / headrace"]["gpu_hours"] < found["fcfs"]["gpu_hours"]
    (decision,) = found["fcfs / headrace"]["decisions"]
    assert (decision["pool"], decision["instances_before"], decision["instances"]) == ("llm", 2, 1)
    assert "llm: instances" in (folder / "minute.html").read_text()


def test_a_trace_runs_to_its_end_on_the_default_fleet(folder: Path) -> None:
    done = simulate(folder, "--trace", "trace.csv", "--format", "azure-llm", "--report", "new/told.html")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("fcfs"))
    assert row.split()[1:3] == ["30", "30"]
    assert done.stdout.rstrip().endswith("report: new/told.html")
    assert "duration_s = 30.0" in (folder / "new" / "told.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name a scenario"),
        (("nowhere",), "no scenario 'nowhere'"),
        (("minute.toml", "--policy", "best"), "--policy: no policy 'best'"),
        (
            ("minute.toml", "--autoscale", "best"),
            "--autoscale: policy: there is no 'best'; allowed: published, headrace",
        ),
        (("minute.toml", "--set", "autoscale.pools.tower.min=1"), "[autoscale] pools: there is no pool 'tower'"),
        (("minute.toml", "--set", "duration_s"), "write key=value"),
        (("minute.toml", "--set", "duration=5"), "there is no key 'duration'"),
        (("minute.toml", "--set", "fleet.pools.llm.gpu=zx81"), "zx81"),
        (("--trace", "trace.csv"), "--format is missing"),
        (("--trace", "trace.csv", "--format", "mooncake"), "trace.csv"),
        (("minute.toml", "--trace", "trace.csv"), "not both"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    words: tuple[str, ...],
    told: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert main(["simulate", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not list(folder.glob("*.html"))
