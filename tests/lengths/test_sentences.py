"""Sentence embeddings: padding changes nothing, marks are added once, vectors have length 1."""

import numpy as np
import pytest

from headrace.predictor import sentences
from headrace.predictor.reading import END, START

TEXTS = ["short", "a somewhat longer text about rivers and mills", "Écoute, ça va?"]
MARKED = {
    "none": ([7, 8], [START, 7, 8, END]),
    "both": ([START, 7, END], [START, 7, END]),
    "the first": ([START, 7], [START, 7, END]),
    "the last": ([7, END], [START, 7, END]),
    "nothing": ([], [START, END]),
}


@pytest.mark.parametrize(("given", "marked"), MARKED.values(), ids=MARKED)
@pytest.mark.parametrize("kind", [list, tuple])
def test_marks(given: list[int], marked: list[int], kind: type) -> None:
    assert sentences.marked(kind(given)) == marked


def test_a_text_is_the_same_alone_and_among_longer_ones() -> None:
    encoder, ids = sentences.Sentences(), sentences.read(TEXTS)
    together = encoder.embed(ids)
    alone = np.concatenate([encoder.embed([one]) for one in ids])
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx([1.0] * 3)
    assert sorted(place for batch in encoder.batches(ids) for place in batch) == [0, 1, 2]
