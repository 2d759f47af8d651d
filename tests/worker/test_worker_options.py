"""Limits that each pool of live workers has for itself, by the environment or by flags of one process."""

import pytest

from headrace.core.types import Key, Sampling
from headrace.engines.base import SequenceInput
from headrace.mesh.errors import BadSetup
from headrace.worker.process import load_stock, parse

ENV = {"HEADRACE_ENGINE": "profile", "HEADRACE_MODEL": "profile-tiny", "HEADRACE_CHUNK_TOKENS": "64"}


def steps_of_prefill(words: list[str]) -> int:
    """How many iterations a prompt of 200 tokens is prefilled in."""
    engine = load_stock(parse(["--id", "p", *words], ENV, "prefill")).first.engine
    assert engine is not None
    engine.add(SequenceInput(Key("r", 1), tuple(range(200)), 200, (), (), "", Sampling(4)))
    steps = 1
    while not engine.step().prefilled:
        steps += 1
    return steps


@pytest.mark.parametrize(("words", "steps"), [([], 4), (["--chunk-tokens", "128"], 2), (["--chunk-tokens", "512"], 1)])
def test_what_an_iteration_prefills_at_most(words: list[str], steps: int) -> None:
    """64 tokens by the environment; a flag is for this process alone."""
    assert steps_of_prefill(words) == steps


def test_an_encoders_batch() -> None:
    assert parse(["--id", "e"], {}, "encode").settings.encoder_batch == 8
    assert parse(["--id", "e", "--encoder-batch", "2"], {}, "encode").settings.encoder_batch == 2
    with pytest.raises(BadSetup, match="HEADRACE_ENCODER_BATCH"):
        parse(["--id", "e"], {"HEADRACE_ENCODER_BATCH": "0"}, "encode")
