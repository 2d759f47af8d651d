"""The command: its JSON object, its page, and what it says of a mistake."""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.main import main
from headrace.workload.arrival import Arrival
from headrace.workload.traces import save
from tests.characterize.synthetic import LLM, TOWER

HEAD = {"machine", "date", "commit", "seeds", "command"}


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON object of the last line, and what went to standard error."""
    code = main(["characterize", *words, "--json"])
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert len(lines) <= 1, "the object is all that goes to standard output"
    return code, json.loads(lines[0]) if lines else {}, told.err


def test_profiles_as_json_and_as_a_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    code, said, shown = asked(capsys, "--model", "llama-3.2-11b-vision", "--no-simulation", "--report", str(page))
    assert code == 0
    assert said.keys() == HEAD | {"origin", "models"}
    model = said["models"]["llama-3.2-11b-vision"]
    assert model.keys() == {"gpu", "stages", "batching", "parallelism", "contracts"}
    assert model["stages"].keys() >= {"shares", "seconds", "ttft_s", "paper_encode_share", "calibrated_on_it", "source"}
    assert model["stages"]["image_tokens"] == 6404
    assert model["batching"]["gain"].keys() == {"encode", "prefill", "decode"}
    assert len(model["contracts"]["fig12"]["ttft_s"]) == 11
    assert "(computed)" in shown
    assert "calibrated on it" in shown
    html = page.read_text()
    assert "<svg" in html
    assert "Encoder profile a100/llama-3.2-11b-vision/tp4" in html
    assert "http" not in html.replace("http://www.w3.org", ""), "nothing is fetched from elsewhere"


def test_a_models_own_profiles(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "llm.toml").write_text(LLM.format(cross_kv=0, cross_token=0, cross_pair=0))
    (tmp_path / "tower.toml").write_text(TOWER)
    own = ("--llm", str(tmp_path / "llm.toml"), "--encoder", str(tmp_path / "tower.toml"))
    code, said, _ = asked(capsys, "--model", "internvl-2.5-26b", "--gpus", "2", "--image", "448x448", *own)
    assert code == 0
    stages = said["models"]["internvl-2.5-26b"]["stages"]
    assert stages["gpus"] == 2
    assert stages["seconds"]["encode"] == pytest.approx(0.08), "one tile on two GPUs"
    assert "interference" not in said["models"]["internvl-2.5-26b"], "the simulator knows packaged encoders alone"


def test_a_model_without_an_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = asked(capsys, "--model", "mistral-7b")
    assert code == 0
    assert said["models"]["mistral-7b"]["stages"]["shares"]["prefill"] == 1.0
    assert said["models"]["mistral-7b"]["batching"]["gain"].keys() == {"prefill", "decode"}


def test_a_trace_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save([Arrival(float(at), 100, 10) for at in range(100)], tmp_path / "t.jsonl")
    page = tmp_path / "out.html"
    code, said, shown = asked(
        capsys, "--trace", str(tmp_path / "t.jsonl"), "--format", "headrace", "--report", str(page)
    )
    assert code == 0
    assert said.keys() >= HEAD | {"origin", "requests", "duration_s", "arrivals", "input_tokens", "shares"}
    assert (said["origin"], said["requests"], said["duration_s"]) == ("counted", 100, 99.0)
    assert "(counted)" in shown
    assert "Request rate" in page.read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "nobody"], "no model 'nobody'"),
        (["--gpu", "z80"], "no GPU 'z80'"),
        (["--trace", "t.jsonl"], "--format is missing"),
        (["--trace", "none.jsonl", "--format", "headrace"], "none.jsonl"),
        (["--live", "--paper"], "--live and --paper: one of them at a time"),
        (["--live", "--data-dir", "nowhere"], "no mesh is running here"),
        (["--paper", "--llm", "x.toml"], "name it with --model"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], words: list[str], complaint: str) -> None:
    code, said, shown = asked(capsys, *words)
    assert (code, said) == (2, {})
    assert complaint in shown
    assert "Traceback" not in shown


def test_sizes_are_read_strictly(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["characterize", "--image", "896"])
    assert "WIDTHxHEIGHT" in capsys.readouterr().err
