"""The vLLM adapter: what it refuses before anything is loaded, and, where VLLM_PYTHON names an interpreter that has
vLLM, its tokens and log-probabilities beside transformers' on the same checkpoint.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.engines.families import family
from headrace.engines.registry import EngineConfigError, check_stages, hands_over, load_engine
from tests import checkpoints
from tests.engines.vllm_driving import COUNT, PROMPTS

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("VLLM_PYTHON", "")
LOAD = "load_engine('vllm', {!r}, threads=1, slots=4, blocks=64)"


def environment() -> dict[str, str]:
    """Of a process of the other interpreter: this checkout, one thread."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'libs'}:{ROOT}", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("stages", [("prefill",), ("decode",), ("encode", "decode")])
def test_what_needs_a_hand_over_is_refused_at_start(stages: tuple[str, ...]) -> None:
    with pytest.raises(EngineConfigError, match="run with --stages prefill,decode"):
        check_stages("vllm", "/anywhere", stages)


def test_a_model_that_is_no_directory_is_refused() -> None:
    with pytest.raises(EngineConfigError, match="Hugging Face directories"):
        load_engine("vllm", "smollm2-135m", threads=1, slots=4, blocks=64)


def test_the_others_hand_over() -> None:
    assert [hands_over(engine) for engine in ("onnx", "torch", "profile", "vllm")] == [True, True, True, False]
    check_stages("onnx", "smollm2-135m", ("decode",))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not PYTHON:
        pytest.skip("VLLM_PYTHON names no interpreter that has vLLM")
    pytest.importorskip("transformers")
    # Heads of 32: vLLM's CPU kernels have none of 16.
    return checkpoints.build("llama", tmp_path_factory.mktemp("vllm"), hidden_size=128)


def test_a_shape_that_its_kernels_lack_is_refused_at_start(tmp_path: Path) -> None:
    """Heads of 16 on a CPU: vLLM itself would fail at the first request."""
    if not PYTHON:
        pytest.skip("VLLM_PYTHON names no interpreter that has vLLM")
    path = checkpoints.build("llama", tmp_path)
    code = f"from headrace.engines.registry import load_engine\n{LOAD.format(str(path))}"
    ran = subprocess.run(
        [PYTHON, "-c", code], env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert "cannot serve" in ran.stderr
    assert "Unavailable" in ran.stderr


@pytest.fixture(scope="module")
def told(directory: Path) -> dict[str, Any]:
    ran = subprocess.run(
        [PYTHON, str(ROOT / "tests/engines/vllm_driving.py"), str(directory)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    import transformers as hf

    return hf.AutoModelForCausalLM.from_pretrained(directory).eval()


def generated(model: Any, prompt: list[int], **options: Any) -> list[int]:
    import torch

    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]), do_sample=False, min_new_tokens=COUNT, max_new_tokens=COUNT, **options
        )
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


def tokens_of(told: list[Any]) -> list[int]:
    return [token for _, token, _ in told]


pytestmark = pytest.mark.timeout(600)


def test_tokens_equal_the_reference(told: dict[str, Any], model: Any) -> None:
    """Sequences that arrive one after the other; indexes count from the first output token."""
    for row, prompt in enumerate(PROMPTS[:4]):
        heard = told["greedy"][str(row)]
        assert [index for index, _, _ in heard] == list(range(COUNT))
        assert tokens_of(heard) == generated(model, prompt)
    assert len({tuple(tokens_of(heard)) for heard in told["greedy"].values()}) == 4, "a constant would prove nothing"


def test_replayed_tokens_are_not_sampled_again(told: dict[str, Any]) -> None:
    assert told["resumed"] == told["greedy"]["2"][5:]


def test_sampling_is_mapped(told: dict[str, Any], model: Any) -> None:
    assert tokens_of(told["penalised"]) == generated(model, PROMPTS[1], repetition_penalty=1.8)
    assert tokens_of(told["penalised"]) != tokens_of(told["greedy"]["1"])
    first, again, other = told["warm"]
    assert first == again
    assert tokens_of(first) != tokens_of(other)


def test_logprobs_are_the_log_softmax(told: dict[str, Any], model: Any) -> None:
    import torch

    tokens = tokens_of(told["logprobs"])
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPTS[2], *tokens]])).logits[0].double()
    rows = torch.log_softmax(logits, -1).numpy()[len(PROMPTS[2]) - 1 :]
    for row, (_, token, (logprob, top)) in zip(rows, told["logprobs"], strict=False):
        assert logprob == pytest.approx(row[token], abs=1e-3)
        assert [likely for likely, _ in top] == np.argsort(-row)[:3].tolist()
        np.testing.assert_allclose([value for _, value in top], -np.sort(-row)[:3], atol=1e-3)


def test_a_grammar_is_kept_and_the_other_row_is_as_ever(told: dict[str, Any], directory: Path) -> None:
    kind = family(str(directory))
    tokens = tokens_of(told["constrained"]["5"])
    assert tokens[-1] in kind.spec.eos_ids
    assert json.loads(b"".join([kind.pieces[token] for token in tokens])) in ({"a": 1}, {"a": 23})
    assert told["constrained"]["6"] == told["greedy"]["3"]
    assert "cannot go on within a grammar" in told["not_resumed"]


def test_books_and_refusals(told: dict[str, Any]) -> None:
    assert told["used"] == [1, 1, 0, 0, 0, False], "removed in the middle: slot and block are free, nothing goes on"
    assert all("leave its process" in why for why in told["refused"][:3])
    assert "text" in told["refused"][3]
    assert told["cached"][0] == 0
    assert told["cached"][1] == 64, "two whole KV blocks of vLLM's"
