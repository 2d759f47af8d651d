"""Profiles that cannot be used: every complaint names the file, the table and the field."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.core.cost import Link
from headrace.profiles import ProfileError, encoder, engine_profile, gpu, instance, model

OWN = """
kind = "llm"
gpu = "a100"

[sources]
time = "[M] measured at home"
attention = "[M] measured at home"
memory = "[I] as nvidia-smi shows it"
load = "[I] about"

[model]
source = "[R] its config.json"
context_tokens = 4096
kv_bytes_per_token = 1000
weights_bytes = 1000000

[tp1]
gpus = 1
tokens = [1, 100]
tokens_s = [0.01, 0.02]
kv_room_bytes = 1000000
chunk_tokens = 512
block_tokens = 16
load_cold_s = 10.0
load_warm_s = 1.0
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_users_own_file(tmp_path: Path) -> None:
    path = written(tmp_path, OWN)
    profile = instance(str(path))
    assert instance(f"{path}/tp1") == profile
    assert (profile.name, profile.gpus, profile.kv_bytes_per_token) == ("a100/own/tp1", 1, 1000)
    assert profile.step.tokens_s(100) == pytest.approx(0.02)
    assert profile.power == gpu("a100").power, "the card's, where the file says nothing"
    for told in ("[M] measured at home", "[I] as nvidia-smi shows it", "[I] about"):
        assert told in profile.source
    engine = engine_profile(str(path))
    assert (engine.cost, engine.kv_bytes_per_token, engine.chunk_tokens) == (profile.step, 1000, 512)


def test_own_power_stands_before_the_cards(tmp_path: Path) -> None:
    power = "idle_w = 1\ncontext_w = 2\nprefill_w = 3\ndecode_w = 4\nencode_w = 5\n"
    path = written(tmp_path, f'{OWN}\n[power]\nsource = "[M] a meter"\n{power}')
    assert instance(str(path)).power.decode_w == 4


WRONG = [  # what is replaced, by what, what the message says
    ("gpus = 1", "", "table [tp1], field gpus: is missing"),
    ("gpus = 1", "gpus = 0", "table [tp1], field gpus: must be a whole number, at least 1"),
    ("gpus = 1", "gpus = 1.5", "table [tp1], field gpus: must be a whole number"),
    ("gpus = 1", "gpus = true", "table [tp1], field gpus: must be a whole number"),
    ("gpus = 1", "gpus = 1\ngpsu = 2", "table [tp1], field gpsu: is unknown"),
    ("[0.01, 0.02]", "[0.02, 0.01]", "table [tp1], field tokens_s: must not fall"),
    ("[0.01, 0.02]", "[0.01]", "table [tp1], field tokens_s: has 1 numbers, tokens has 2"),
    ("[0.01, 0.02]", "[]", "table [tp1], field tokens_s: must be a list of numbers"),
    ("[0.01, 0.02]", '[0.01, "x"]', "table [tp1], field tokens_s: must be a number"),
    ("[0.01, 0.02]", "[-0.01, 0.02]", "table [tp1], field tokens_s: must be a number, not negative"),
    ("[0.01, 0.02]", "[0.01, inf]", "table [tp1], field tokens_s: must be a number"),
    ("[0.01, 0.02]", "[0.01, nan]", "table [tp1], field tokens_s: must be a number"),
    ("[1, 100]", "[100, 1]", "table [tp1], field tokens: must grow"),
    ("[1, 100]", "[1, 1]", "table [tp1], field tokens: must grow"),
    (
        "kv_room_bytes = 1000000",
        "kv_room_bytes = 0",
        "table [tp1], field kv_room_bytes: must be a whole number, at least",
    ),
    ("load_warm_s = 1.0", "load_warm_s = -1", "table [tp1], field load_warm_s: must be a number, not negative"),
    (
        "load_warm_s = 1.0",
        "load_warm_s = 1\nprefill_pair_s = -1",
        "table [tp1], field prefill_pair_s: must be a number",
    ),
    ("[M] measured at home", "measured at home", "table [sources], field time: must open with an evidence tag"),
    ('load = "[I] about"', "", "table [sources], field load: is missing"),
    ('load = "[I] about"', 'load = "[I] about"\nmore = "[I] x"', "table [sources], field more: is unknown"),
    ("[R] its config.json", "its config.json", "table [model], field source: must open with an evidence tag"),
    ("weights_bytes = 1000000", "weights_bytes = 1e6", "table [model], field weights_bytes: must be a whole number"),
    ("weights_bytes = 1000000", "weights_bytes = 1\nlayer = 3", "table [model], field layer: is unknown"),
    ('kind = "llm"', 'kind = "encoder"', "field kind: 'encoder' is not one of llm"),
    ('kind = "llm"', "", "field kind: is missing"),
    ('kind = "llm"', 'kind = "llm"\nextra = 1', "field extra: is unknown"),
    ('gpu = "a100"', 'gpu = ""', "field gpu: must be a text"),
    ('gpu = "a100"', "", "field gpu: is missing"),
    ("[tp1]", "[[tp1]]", "field tp1: must be a table"),
    ("[model]", "[model", "is not TOML"),
]


@pytest.mark.parametrize(("old", "new", "told"), WRONG, ids=[told for _, _, told in WRONG])
def test_wrong_files(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in OWN
    path = written(tmp_path, OWN.replace(old, new))
    with pytest.raises(ProfileError, match=re.escape(told)) as raised:
        instance(f"{path}/tp1")
    assert str(path) in str(raised.value)


NAMES: list[tuple[Callable[[str], object], str, str]] = [
    (instance, "a100/no-such-model/tp1", "no instance 'no-such-model' in 'a100'; packaged: internlm2.5-20b"),
    (instance, "b200/llama-2-70b/tp8", "no instance 'llama-2-70b' in 'b200'; packaged: none"),
    (instance, "a100/llama-2-70b/tp1", "no table [tp1]; it has tp2, tp4, tp8"),
    (instance, "a100/llama-2-70b", "must be <gpu>/<model>/tp<gpus>"),
    (instance, "llama-2-70b", "must be <gpu>/<model>/tp<gpus>"),
    (instance, "../models/llama-2-70b/tp1", "must be <gpu>/<model>/tp<gpus>"),
    (instance, "..a/llama-2-70b/tp1", "no instance"),
    (instance, "a100/vit-h14/tp1", "field kind: 'encoder' is not one of llm"),
    (instance, "no/such/file.toml/tp1", "profile no/such/file.toml: cannot be read: No such file or directory"),
    (encoder, "a100/no-such-tower/tp1", "no encoder 'no-such-tower' in 'a100'"),
    (encoder, "a100/internlm2.5-20b/tp1", "field kind: 'llm' is not one of encoder"),
    (encoder, "a100/mistral-7b/tp1", "model mistral-7b takes text alone"),
    (encoder, "a100/vit-h14/tp3", "no table [tp3]; it has tp1, tp2, tp4, tp8"),
    (model, "no-such-model", "no model 'no-such-model' in 'models'; packaged: internvl-2.5-26b"),
    (gpu, "b200", "no GPU 'b200' in 'gpus'; packaged: a10, a100, h100"),
    (gpu, "../gpus/a100", "no GPU"),
    (engine_profile, "no-such-profile", "packaged: a100x8-llama2-70b, h100-qwen3-8b, zero"),
    (engine_profile, "a100/llama-2-70b/tp1", "no table [tp1]"),
    (engine_profile, "no-such-file.toml", "cannot be read"),
]


@pytest.mark.parametrize(("load", "name", "told"), NAMES, ids=[f"{load.__name__} {name}" for load, name, _ in NAMES])
def test_wrong_names(load: Callable[[str], object], name: str, told: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(told)):
        load(name)


def test_a_path_must_say_which_table(tmp_path: Path) -> None:
    path = written(tmp_path, OWN + OWN[OWN.index("[tp1]") :].replace("[tp1]", "[tp2]").replace("gpus = 1", "gpus = 2"))
    assert instance(f"{path}/tp2").gpus == 2
    with pytest.raises(ProfileError, match="say which of tp1, tp2"):
        instance(str(path))


ENGINE = 'source = "[I] mine"\nkv_bytes_per_token = 8\n\n[cost]\ntokens = [0]\ntokens_s = [0.5]\n'


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[I] mine", "mine", "field source: must open with an evidence tag"),
        ("kv_bytes_per_token = 8", "", "field kv_bytes_per_token: is missing"),
        ("[cost]", "[costs]", "field cost: is missing"),
        (
            "tokens_s = [0.5]",
            "tokens_s = [0.5]\nprefill_fixed_s = 1",
            "table [cost], field prefill_fixed_s: is unknown",
        ),
        (
            "tokens_s = [0.5]",
            "tokens_s = [0.5]\n[output]\nmean_tokens = -1",
            "table [output], field mean_tokens: must be",
        ),
    ],
)
def test_wrong_engine_profiles(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = written(tmp_path, ENGINE)
    assert engine_profile(str(path)).name == "own"
    path = written(tmp_path, ENGINE.replace(old, new))
    with pytest.raises(ProfileError, match=re.escape(told)):
        engine_profile(str(path))


SMALL = """
source = "[I] both of mine"
kv_bytes_per_token = 8
load_cold_s = 30.0
load_warm_s = 3.0
gpu = "a100"

[cost]
tokens = [0]
tokens_s = [0.5]
decode_sequence_s = 0.01

[output]
mean_tokens = 9

[models."small-1.5b"]
load_warm_s = 1.0

[models."small-1.5b".cost]
tokens = [0]
tokens_s = [0.1]
"""


def test_a_model_with_a_pace_of_its_own(tmp_path: Path) -> None:
    profile = engine_profile(str(written(tmp_path, SMALL)))
    small = profile.of("small-1.5b")
    assert (small.cost.tokens_s(1), small.load_warm_s) == (0.1, 1.0)
    assert small.cost.decode_sequence_s == 0, "a table of costs stands for itself"
    assert (small.name, small.source, small.load_cold_s) == ("own/small-1.5b", profile.source, 30.0), "the file's"
    assert (small.kv_bytes_per_token, small.output) == (8, profile.output)
    assert profile.of("another") is profile
    assert (profile.gpu, profile.cost.tokens_s(1), profile.load_warm_s) == ("a100", 0.5, 3.0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("load_warm_s = 1.0", "load_warm_s = -1", "table [models.small-1.5b], field load_warm_s: must be"),
        ("load_warm_s = 1.0", "load_hot_s = 1", "table [models.small-1.5b], field load_hot_s: is unknown"),
        ("load_warm_s = 1.0", "source = 'mine'", "table [models.small-1.5b], field source: must open with"),
        ("load_warm_s = 1.0", 'gpu = "h100"', "table [models.small-1.5b], field gpu: is the worker's"),
        ("load_warm_s = 1.0", "models = {}", "table [models.small-1.5b], field models: is the worker's"),
        ("tokens_s = [0.1]", "", "table [models.small-1.5b.cost], field tokens_s: is missing"),
        ("tokens_s = [0.1]", "tokens_s = [0]\nstep_s = 1", "table [models.small-1.5b.cost], field step_s: is unknown"),
        ("[models.", "[models]\nother = 3\n[models.", "table [models], field other: must be a table"),
    ],
)
def test_wrong_paces_of_a_model(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(told)):
        engine_profile(str(written(tmp_path, SMALL.replace(old, new, 1))))


def test_cards() -> None:
    card = gpu("a100")
    assert card.memory_bytes == 80 << 30
    assert card.power.idle_w < card.power.context_w < card.power.decode_w < card.power.prefill_w == card.tdp_w
    assert card.links["infiniband"] == Link(1e-3, 25e9)
    # ModServe Fig. 20: an image's 6404 rows of 7680 take 5 ms over InfiniBand (P99), 100 ms over Ethernet (P50).
    size_bytes = 6404 * 7680 * 2
    assert card.links["infiniband"].transfer_s(size_bytes) == pytest.approx(0.005, rel=0.1)
    assert card.links["ethernet"].transfer_s(size_bytes) == pytest.approx(0.1, rel=0.1)
    assert "nvlink" not in gpu("a10").links, "an A10 has none"
