"""AIPerf: a sweep over two concurrencies, with the model's own tokenizer and no model hub."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import BIN, ROOT, Served

pytest.importorskip("aiperf", reason="not installed here: make test-clients")

REQUESTS, PROMPT_TOKENS, ANSWER_TOKENS = 8, 40, 8
SAVE = "import sys; from headrace.engines.families import family; family(sys.argv[1]).tokenizer.save(sys.argv[2])"
NAME = "headrace/tokenizer"


@pytest.fixture(scope="module")
def hub(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a model hub's client would have kept of one, had there been a hub; written by the mesh's environment."""
    kept = tmp_path_factory.mktemp("hub")
    repository = kept / f"models--{NAME.replace('/', '--')}"
    folder = repository / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(folder.name)
    command = [str(BIN / "python"), "-c", SAVE, served.model, str(folder / "tokenizer.json")]
    subprocess.run(command, check=True, timeout=120, cwd=ROOT)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return kept


def profiled(served: Served, hub: Path, folder: Path, *words: str) -> dict[str, Any]:
    """What it exports of the run, by metric."""
    command = [
        *(str(Path(sys.executable).parent / "aiperf"), "profile", "--model", served.model, "--url", served.http_url),
        *("--api-key", served.key, "--tokenizer", NAME, "--artifact-dir", str(folder), "--ui", "none"),
        *("--request-count", str(REQUESTS), "--isl", str(PROMPT_TOKENS), "--osl", str(ANSWER_TOKENS)),
        *("--random-seed", "7", "--no-server-metrics", "--no-gpu-telemetry", "--extra-inputs", "ignore_eos:true"),
        "--use-server-token-count",  # text that is tokenised again may have a token less than was drawn
        *words,
    ]
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=folder, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (exported,) = folder.rglob("profile_export_aiperf.json")
    return dict(json.loads(exported.read_text()))


@pytest.mark.timeout(700)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_sweep(served: Served, hub: Path, tmp_path: Path, concurrency: int) -> None:
    """Streams of the length that was asked for, none failed, usage in each."""
    streaming = ("--endpoint-type", "chat", "--streaming", "--concurrency", str(concurrency))
    told = profiled(served, hub, tmp_path, *streaming)
    assert told["request_count"]["avg"] == REQUESTS
    assert told.get("error_request_count", {"avg": 0})["avg"] == 0
    assert told["output_sequence_length"]["avg"] == ANSWER_TOKENS
    assert told["time_to_first_token"]["avg"] > 0
    print({name: told[name]["avg"] for name in ("time_to_first_token", "request_latency", "output_token_throughput")})
