"""The shipped predictor end to end: it tells short answers from long ones, keeps order and caps, repeats itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from headrace.core.lengths import Features
from headrace.predictor.heads import HEADS_FILE, MANIFEST_FILE, Heads, HeadsMismatch, assets
from headrace.predictor.model import Asked, Proxy
from headrace.training.lengths_rows import SOURCES

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def proxy() -> Proxy:
    return Proxy()


def asked(text: str, max_tokens: int = 512, model: str = MODEL, images: int = 0) -> Asked:
    parts = (("image", images),) if images else ()
    return Asked(text, Features(30, max_tokens, model, parts=parts, media_tokens=6 * images))


# (shorter, longer): what the default model answers; wordings and subjects are not of the training rows
PAIRS = [
    (asked("What is the capital of Chile?"), asked("Write a long and detailed article about the history of sailing.")),
    (asked("What digit is in the picture?", images=1), asked("What is a lighthouse keeper's day like?")),
    (asked("What color is the shape?", images=1), asked("Describe in detail how bridges are built.")),
    (asked("Answer yes or no: is iron a metal?"), asked("Explain step by step how to paint a wall.")),
]


@pytest.mark.parametrize(("shorter", "longer"), PAIRS)
def test_short_answers_are_told_from_long_ones(proxy: Proxy, shorter: Asked, longer: Asked) -> None:
    short, long = proxy.predict([shorter, longer])
    assert 1.5 * short.median < long.median


def test_a_batch_is_its_prompts_in_order(proxy: Proxy) -> None:
    every = [one for pair in PAIRS for one in pair] + [asked("word " * 2_000), asked("")]
    together = proxy.predict(every)
    for one, prediction in zip(every, together, strict=True):
        assert proxy.predict([one])[0].values == pytest.approx(prediction.values, rel=2e-3)
    assert proxy.predict([]) == []


def test_caps_and_unknown_models(proxy: Proxy) -> None:
    told = [asked("Write an essay.", 16), asked("Tell me about Paris.", model="somebody-else")]
    capped, unknown = proxy.predict(told)
    assert capped.quantile(1.0) <= 16
    assert 1 <= unknown.quantile(0.05) < unknown.median < unknown.quantile(0.95) <= 512


def test_the_manifest_says_what_the_heads_were_trained_on() -> None:
    manifest = json.loads((assets() / MANIFEST_FILE).read_text())
    assert manifest["models"][MODEL] > 0
    assert {"command", "date", "seed", "recipe", "licences", "rows", "test"} <= manifest.keys()
    assert all(SOURCES[source].shippable for source in manifest["rows"])
    test = manifest["test"]
    assert 0.85 <= test["coverage90"] <= 0.95
    assert test["kendall_tau"] > 0.4


def test_heads_of_another_version_are_refused(tmp_path: Path) -> None:
    folder = tmp_path
    manifest = json.loads((assets() / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest | {"numbers": ["one"]}))
    (folder / HEADS_FILE).write_bytes((assets() / HEADS_FILE).read_bytes())
    with pytest.raises(HeadsMismatch, match="make predictor"):
        Heads(folder)


def test_all_heads_speak_for_every_row(proxy: Proxy) -> None:
    [(at, said)] = list(proxy.say([asked("Why?"), asked("Explain the tides.")]))
    assert sorted(at) == [0, 1]
    assert [array.shape for array in (said.regression, said.classes3, said.classes5, said.ordinal)] == [
        (2,),
        (2, 3),
        (2, 5),
        (2, 4),
    ]
    assert np.all(np.diff(said.quantiles, axis=1) >= 0)
