"""Limits that each pool of live workers has for itself, by the environment or by flags of one process."""

from pathlib import Path

import pytest

from headrace.core.cost import pace_of
from headrace.core.instance import Loadable, Pace
from headrace.core.types import Key, Sampling
from headrace.engines.base import SequenceInput
from headrace.mesh.errors import BadSetup
from headrace.profiles import engine_profile
from headrace.worker.models import Models
from headrace.worker.process import PACE_CONTEXT_TOKENS, load_stock, parse
from tests.worker.kit import at_once

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


PACES = """
source = "[I] a large model and a small one"
kv_bytes_per_token = 8
load_cold_s = 0.04
load_warm_s = 0.02
[cost]
tokens = [0]
tokens_s = [0.5]
[encode]
token_s = 0.3
[models.profile-tiny-small]
load_cold_s = 0.01
[models.profile-tiny-small.cost]
tokens = [0]
tokens_s = [0.1]
[models.profile-tiny-small.encode]
token_s = 0.2
"""


async def test_a_model_is_announced_and_runs_at_its_own_pace(tmp_path: Path) -> None:
    (tmp_path / "paces.toml").write_text(PACES)
    profile = engine_profile(str(tmp_path / "paces.toml"))
    large, small = "profile-tiny", "profile-tiny-small"
    words = ["--profile", str(tmp_path / "paces.toml"), "--models", small, "--slots", "4", "--blocks", "64"]
    stock = load_stock(parse(["--id", "w", "--stages", "encode,prefill,decode", *words], ENV, "prefill"))
    shelf = Models(stock.first, stock.cards, at_once, stock.warm_max)
    paces = {name: pace_of(profile.of(name).cost, 4, PACE_CONTEXT_TOKENS) for name in (large, small)}
    assert shelf.loadable() == (Loadable(small, 0.01, False, 4, 64, 16, paces[small]),)
    assert ran(shelf) == (0.5, 0.3, paces[large])
    assert await shelf.change(small, Pace()) == ""
    assert ran(shelf) == (0.1, 0.2, paces[small])
    (back,) = shelf.loadable()
    assert (back.model, back.load_s, back.warm, back.pace) == (large, 0.02, True, paces[large])
    assert await shelf.change(large, Pace()) == ""
    assert ran(shelf) == (0.5, 0.3, paces[large]), "from host memory, too"


def ran(shelf: Models) -> tuple[float, float, Pace]:
    """Seconds of an iteration, seconds of a token of media, and what is told of its pace."""
    outfit = shelf.loaded
    assert outfit.engine is not None
    key = Key("r", 1)
    outfit.engine.add(SequenceInput(key, (1, 2, 3), 3, (), (), "", Sampling(4)))
    step_s = outfit.engine.step().modelled_s
    outfit.engine.remove(key)
    return step_s, outfit.encode_token_s, outfit.pace
