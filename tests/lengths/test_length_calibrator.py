"""The calibrator makes bounds hold: on predictions that are too low, too high, too sure, drifting or cut off."""

from collections.abc import Callable

import numpy as np
import pytest

from headrace.core.lengths.calibrator import Calibrator
from headrace.core.lengths.prediction import Prediction

LOG_NORMAL = (0.193, 0.278, 0.51, 1.0, 1.96, 3.6, 5.18, 10.24)  # quantiles of exp(z) at LEVELS, z standard normal


def around(centre: float, width: float = 1.0, most: int = 1 << 20) -> Prediction:
    return Prediction.of([centre * ratio**width for ratio in LOG_NORMAL], most)


CASES: list[tuple[str, Callable[[float, int], Prediction]]] = [
    ("right already", lambda centre, i: around(centre)),
    ("three times too low", lambda centre, i: around(centre / 3)),
    ("three times too high", lambda centre, i: around(centre * 3)),
    ("far too sure", lambda centre, i: around(centre, 0.2)),
    ("far too wide", lambda centre, i: around(centre, 2.0)),
    ("drifting from low to high", lambda centre, i: around(centre * (0.4 + i / 3_000))),
]


@pytest.mark.parametrize(("what", "raw_of"), CASES, ids=[what for what, _ in CASES])
def test_bounds_hold_after_a_while(what: str, raw_of: Callable[[float, int], Prediction]) -> None:
    rng, calibrator = np.random.default_rng(11), Calibrator()
    inside: dict[float, list[bool]] = {0.5: [], 0.9: [], 0.95: []}
    for i in range(3_000):
        centre = float(rng.uniform(60, 300))
        length = max(1, round(centre * float(np.exp(rng.normal()))))
        issued = calibrator.calibrated("m", raw_of(centre, i))
        if i >= 1_000:
            for level, held in inside.items():
                held.append(length <= issued.quantile(level))
        calibrator.learn("m", issued, length, stopped=True)
    for level, held in inside.items():
        assert np.mean(held) == pytest.approx(level, abs=0.025), what


def test_each_model_has_its_own_offsets() -> None:
    calibrator = Calibrator()
    for _ in range(200):
        calibrator.learn("long", calibrator.calibrated("long", around(100)), 1_000, stopped=True)
    assert calibrator.calibrated("long", around(100)).median > 300
    assert calibrator.calibrated("other", around(100)) == around(100)


def test_what_was_cut_off_teaches_only_what_it_shows() -> None:
    """Cut off at 40: bounds below 40 have failed, those above may hold; at the cap itself nothing is known."""
    calibrator, raw = Calibrator(), around(100)
    calibrator.learn("m", raw, 40, stopped=False)
    after = calibrator.calibrated("m", raw)
    for before, now in zip(raw.values, after.values, strict=True):
        assert now > before if before < 40 else now == pytest.approx(before)
    capped = Calibrator()
    capped.learn("m", around(100, most=40), 40, stopped=True)
    changed = [
        now != pytest.approx(before) for before, now in zip(raw.values, capped.calibrated("m", raw).values, strict=True)
    ]
    assert changed == [value < 40 for value in raw.values]


def test_offsets_and_models_are_bounded() -> None:
    calibrator = Calibrator(models_max=2)
    for model in "abc":
        for _ in range(3_000):
            calibrator.learn(model, around(1), 1 << 20, stopped=True)
    assert calibrator.calibrated("a", around(100)) == around(100)
    assert calibrator.calibrated("c", around(100)).median <= 100 * 100 * 1.001


def test_a_cap_stays() -> None:
    calibrator = Calibrator()
    calibrator.learn("m", around(100), 5_000, stopped=True)
    assert calibrator.calibrated("m", around(100, most=64)).quantile(1.0) <= 64
