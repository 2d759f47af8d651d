"""The torch engine against transformers on small random checkpoints of each architecture: tokens and log-probabilities.

Requests of different lengths arrive one by one, so that prefill and decode share iterations and chunks are cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from headrace.core.errors import Unavailable
from headrace.core.stages.batch import Emitted
from headrace.core.types import MediaSpan
from headrace.engines.base import SequenceInput
from headrace.engines.families import family
from headrace.engines.families.decoder import Decoder, Positions
from headrace.engines.torch_decoder import TorchDecoder
from headrace.engines.torch_engine import TorchEngine
from tests.engines.hf_cases import Case, case

pytestmark = pytest.mark.timeout(120)  # the first test waits for transformers to be imported
COUNT = 16
CHUNK_TOKENS = 32
LOGPROB_ERROR = 1e-4

LONG = {"rope_theta": 500_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {**LONG, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, llama3 rope": {"rope_parameters": LLAMA3},
    "llama, yarn rope": {"rope_parameters": {**LONG, "rope_type": "yarn"}},
    "llama, linear rope": {"rope_parameters": {"rope_theta": 10_000.0, "rope_type": "linear", "factor": 2.0}},
    "llama, biases": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {},
    "qwen3": {},
    "qwen2_5_vl": {},
    "qwen3_vl": {},
    "mllama": {},
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield Path(path)


@cache
def made(name: str, folder: Path) -> Case:
    return case(name.partition(",")[0], folder / name, count=COUNT, **KINDS[name])


def engine(known: Case, decoder: Decoder, chunk_tokens: int = CHUNK_TOKENS) -> TorchEngine:
    model = TorchDecoder(decoder, device=torch.device("cpu"), dtype=torch.float32)
    return TorchEngine(family(str(known.folder)).spec, model, slots=8, blocks=200, chunk_tokens=chunk_tokens)


def answers(subject: TorchEngine, requests: Sequence[SequenceInput], at_once: int = 1) -> dict[str, list[Emitted]]:
    """COUNT tokens of each; so many arrive at once, the others one by one, each an iteration after the one before."""
    out: dict[str, list[Emitted]] = {}
    arriving = list(requests)
    for _ in range(at_once - 1):
        subject.add(arriving.pop(0))
    while arriving or subject.has_work():
        if arriving:
            subject.add(arriving.pop(0))
        for token in subject.step().emitted:
            told = out.setdefault(token.key.request_id, [])
            told.append(token)
            if len(told) == COUNT:
                subject.remove(token.key)
    subject.check_integrity()
    return out


def differing(known: Case, told: dict[str, list[Emitted]]) -> list[str]:
    """Requests whose tokens or log-probabilities are not the reference's."""
    wrong = []
    for request, answer in zip(known.requests, known.answers, strict=True):
        emitted = told[request.given.key.request_id]
        if [token.token for token in emitted] != answer.tokens or _error(emitted, answer.logprobs) > LOGPROB_ERROR:
            wrong.append(request.given.key.request_id)
    return wrong


def _error(emitted: list[Emitted], logprobs: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    tops = [token.logprobs.top for token in emitted if token.logprobs is not None]
    assert len(tops) == COUNT
    return float(max(abs(said - logprobs[index, token]) for index, top in enumerate(tops) for token, said in top))


@pytest.mark.parametrize("name", KINDS)
def test_tokens_and_logprobs_equal_transformers(name: str, folder: Path) -> None:
    known = made(name, folder)
    assert len({tuple(answer.tokens) for answer in known.answers}) == len(known.answers), "answers do not vary"
    assert len({token for answer in known.answers for token in answer.tokens}) > COUNT
    subject = engine(known, known.decoder)
    assert not differing(known, answers(subject, [request.given for request in known.requests]))


@pytest.mark.parametrize("name", ["llama", "qwen3_vl", "mllama"])
@pytest.mark.parametrize("chunk_tokens", [64, 512])
def test_prompts_of_different_lengths_are_prefilled_together(name: str, chunk_tokens: int, folder: Path) -> None:
    """Padded to one shape for attention, from their start and, in smaller chunks, behind what was done before."""
    known = made(name, folder)
    subject = engine(known, known.decoder, chunk_tokens)
    told = answers(subject, [request.given for request in known.requests], at_once=len(known.requests))
    assert not differing(known, told)


@pytest.mark.parametrize("name", ["llama", "qwen2_5_vl", "qwen3_vl", "mllama"])
def test_bfloat16_is_near(name: str, folder: Path) -> None:
    """Eight bits of mantissa: log-probabilities of the first token differ in the second digit, of all requests."""
    known = made(name, folder)
    model = TorchDecoder(known.decoder, device=torch.device("cpu"), dtype=torch.bfloat16)
    subject = TorchEngine(family(str(known.folder)).spec, model, slots=8, blocks=200, chunk_tokens=CHUNK_TOKENS)
    told = answers(subject, [request.given for request in known.requests])
    for request, answer in zip(known.requests, known.answers, strict=True):
        first = told[request.given.key.request_id][0].logprobs
        assert first is not None
        error = max(abs(said - answer.logprobs[0, token]) for token, said in first.top)
        assert 1e-4 < error < 0.2


def swapped_layers(decoder: Decoder) -> Decoder:
    """The last two layers of the same kind change places."""
    alike = [layer for layer in range(decoder.layers) if layer not in decoder.cross_layers][-2:]

    def rename(name: str) -> str:
        parts = decoder.rename(name).split(".")
        if parts[0] == "layers" and int(parts[1]) in alike:
            parts[1] = str(sum(alike) - int(parts[1]))
        return ".".join(parts)

    return replace(decoder, rename=rename)


def output_one_further(decoder: Decoder) -> Decoder:
    """Output tokens stand one position further on than they should."""

    def positions(tokens: int, spans: Sequence[MediaSpan]) -> tuple[Positions, int]:
        laid_out, following = decoder.positions(tokens, spans)
        return laid_out, following + 1

    return replace(decoder, positions=positions)


def axes_in_another_order(decoder: Decoder) -> Decoder:
    def positions(tokens: int, spans: Sequence[MediaSpan]) -> tuple[Positions, int]:
        laid_out, following = decoder.positions(tokens, spans)
        return laid_out[::-1], following

    return replace(decoder, positions=positions)


def other_rope(decoder: Decoder) -> Decoder:
    return replace(decoder, rope=replace(decoder.rope, base=decoder.rope.base * 2))


MUTATIONS = [
    *((kind, mutation) for kind in KINDS for mutation in (swapped_layers, output_one_further)),
    ("qwen2_5_vl", axes_in_another_order),
    ("qwen3_vl", axes_in_another_order),
    ("llama", other_rope),
]


@pytest.mark.parametrize(("name", "mutate"), MUTATIONS, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_decoder_answers_otherwise(name: str, mutate: Any, folder: Path) -> None:
    known = made(name, folder)
    told = answers(engine(known, mutate(known.decoder)), [request.given for request in known.requests])
    assert differing(known, told)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "mllama"])
def test_a_picture_left_out_is_missed(name: str, folder: Path) -> None:
    """With its rows zeroed every request with media answers otherwise, and the others do not."""
    known = made(name, folder)
    blind = [
        replace(request.given, embeddings=tuple(rows * 0 for rows in request.given.embeddings))
        for request in known.requests
    ]
    wrong = differing(known, answers(engine(known, known.decoder), blind))
    assert wrong == [request.given.key.request_id for request in known.requests if request.given.spans]


def test_deepstack_rows_count(folder: Path) -> None:
    known = made("qwen3_vl", folder)
    shallow = [
        replace(request.given, embeddings=tuple(rows * _first(rows, 64) for rows in request.given.embeddings))
        for request in known.requests
    ]
    assert len(differing(known, answers(engine(known, known.decoder), shallow))) == 3


def _first(rows: np.ndarray[Any, np.dtype[np.float32]], width: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.arange(rows.shape[1]) < width


@pytest.mark.parametrize(
    ("rename", "why"),
    [
        (lambda name: name.removeprefix("model.").replace("layers.2.", "layers.9."), "layers.2.*is missing"),
        (lambda name: "" if "norm" in name else name.removeprefix("model."), "norm.weight is missing"),
        (lambda name: name.removeprefix("model.").replace("lm_head", "head"), "lm_head.weight is missing"),
    ],
)
def test_half_a_checkpoint_is_refused(rename: Any, why: str, folder: Path) -> None:
    known = made("llama", folder)
    with pytest.raises(Unavailable, match=why):
        engine(known, replace(known.decoder, rename=rename))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"layers": 2}, "9 weights have no use"),
        ({"kv_heads": 4}, "has the shape"),
        ({"activation": "swish2"}, "activation swish2"),
        ({"directory": Path("/nowhere")}, r"holds no \*.safetensors"),
    ],
)
def test_a_decoder_that_is_not_the_checkpoints_is_refused(changes: dict[str, Any], why: str, folder: Path) -> None:
    known = made("llama", folder)
    with pytest.raises(Unavailable, match=why):
        engine(known, replace(known.decoder, **changes))
