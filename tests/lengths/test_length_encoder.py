"""The encoder in torch is the packaged one, and a correction learnt there is the same one in the served graph."""

import io

import numpy as np
import pytest
import torch

from headrace.core.errors import Unavailable
from headrace.predictor.adapting import LAYERS, PARTS, adapted, load_deltas
from headrace.predictor.encoder import Encoder, encoder_path
from headrace.predictor.reading import Reader
from headrace.training.lengths_encoder import Adapted, Upper, lower_graph

LOWER, RANK = 4, 3
TEXTS = ["Write a poem about the sea.", "List five rivers in France and explain each of them in detail."]


@pytest.fixture(scope="module")
def ids() -> list[list[int]]:
    return Reader().read(TEXTS)


@pytest.fixture(scope="module")
def upper() -> Upper:
    torch.manual_seed(0)
    return Upper(encoder_path(), LOWER, RANK)


def in_torch(upper: Upper, ids: list[list[int]]) -> np.ndarray:
    states, mask = Encoder(1, lower_graph(encoder_path(), LOWER)).states(ids)
    with torch.no_grad():
        found: np.ndarray = upper(torch.from_numpy(states), torch.from_numpy(mask)).numpy()
    return found[mask > 0]


def test_uncorrected_it_is_the_packaged_encoder_and_corrected_the_adapted_one(
    upper: Upper, ids: list[list[int]]
) -> None:
    plain, mask = Encoder(1).states(ids)
    assert in_torch(upper, ids) == pytest.approx(plain[mask > 0], abs=1e-4)
    for module in upper.modules():
        if isinstance(module, Adapted):
            module.b.data.normal_(0, 0.02)
    file = io.BytesIO()
    np.savez(file, **upper.deltas())  # type: ignore[arg-type]
    file.seek(0)
    deltas = load_deltas(file)
    assert len(deltas) == (LAYERS - LOWER) * len(PARTS)
    corrected, _ = Encoder(1, adapted(encoder_path(), deltas)).states(ids)
    assert in_torch(upper, ids) == pytest.approx(corrected[mask > 0], abs=2e-3)
    assert np.abs(corrected - plain)[mask > 0].max() > 0.05


def test_a_layer_that_is_not_there_is_named() -> None:
    zeros = np.zeros((384, 1), np.float32), np.zeros((1, 384), np.float32)
    with pytest.raises(ValueError, match=r"layer\.9\.output\.dense"):
        adapted(encoder_path(), {"layer.9.output.dense": zeros})


def test_padding_changes_nothing(ids: list[list[int]]) -> None:
    encoder = Encoder(1)
    together, _ = encoder.states(ids)
    alone, _ = encoder.states(ids[:1])
    assert together[0, : len(ids[0])] == pytest.approx(alone[0], abs=1e-4)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(Unavailable, match="no-such-package"):
        encoder_path("no-such-package")
