"""Training data of the length predictor: splits hold, what may not be passed on is not, bounds are calibrated."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from headrace.core.lengths import LEVELS
from headrace.training.lengths_asked import own_prompts
from headrace.training.lengths_figures import censored_quantile, offsets_of, point_figures
from headrace.training.lengths_fit import training_rows
from headrace.training.lengths_rows import (
    SOURCES,
    Row,
    medians,
    read_all,
    read_outputs,
    read_rows,
    read_texts,
    split_of,
    write_outputs,
    write_rows,
)

DATA = Path(__file__).parents[2].parent / "shared" / "data"
ROWS = [
    Row("headrace", "Explain the tides.", 90, "smollm2-135m", True, 38),
    Row("codealpaca", "Write a loop.", 512, "smollm2-135m", False, 35),
    Row("image", "What digit is it?", 7, "smollm2-135m", True, 20, (("image", 2),), 12),
]


def test_splits_are_seven_one_and_two_tenths_by_prompt() -> None:
    splits: list[str] = [split_of(f"prompt {i}") for i in range(5_000)]
    for name, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert splits.count(name) / len(splits) == pytest.approx(share, abs=0.02)
    assert ROWS[0].split == split_of(ROWS[0].prompt)


def test_prompts_that_may_not_be_passed_on_are_found_again_by_their_digest(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl.gz"
    write_outputs(path, {"what": "a test"}, ROWS)
    assert b"Write a loop" not in gzip.decompress(path.read_bytes())
    assert read_all(path, "smollm2-135m") == [ROWS[0], None, ROWS[2]]
    assert read_outputs(path, "smollm2-135m", ["Write a loop."]) == ROWS


def test_only_free_sources_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl.gz"
    free = [Row("vicuna80", "Why?", 10, "bard")]
    write_rows(path, free)
    assert read_rows(path) == free
    with pytest.raises(AssertionError, match="may not be passed on"):
        write_rows(path, [ROWS[1]])


def test_prompts_of_several_models_get_their_median() -> None:
    rows = [Row("alpaca_eval", "Why?", tokens, f"m{tokens}") for tokens in (10, 20, 90, 100, 400)]
    assert medians([*rows, ROWS[0]]) == [Row("alpaca_eval", "Why?", 90), ROWS[0]]
    chosen = training_rows([*rows, ROWS[0]], seed=1)
    assert len(chosen) == 5
    assert chosen[3:] == [Row("alpaca_eval", "Why?", 90), ROWS[0]]


def test_own_prompts_differ_and_repeat_with_their_seed() -> None:
    prompts = own_prompts(500, 3)
    assert len(set(prompts)) == 500
    assert own_prompts(500, 3) == prompts
    assert not [prompt for prompt in own_prompts(2_000, 3) if "{" in prompt]


def test_offsets_make_quantiles_hold() -> None:
    """All quantiles said are 100 tokens; lengths are uniform over 1 .. 1000, and some are cut off at random."""
    rng = np.random.default_rng(2)
    lengths, cuts = rng.integers(1, 1_001, 6_000), rng.integers(1, 2_000, 6_000)
    rows = [Row("headrace", "", int(min(n, cut)), stopped=bool(n <= cut)) for n, cut in zip(lengths, cuts, strict=True)]
    assert 0.1 < np.mean([not row.stopped for row in rows]) < 0.4
    moved = 100 * np.exp(offsets_of(np.full((len(rows), len(LEVELS)), np.log(100), np.float32), rows))
    assert moved == pytest.approx([1_000 * level for level in LEVELS], rel=0.1)


@pytest.mark.parametrize(
    ("values", "known", "level", "expected"),
    [
        ((1, 2, 3, 4), (1, 1, 1, 1), 0.5, 2),
        ((1, 2, 3, 4), (1, 0, 1, 1), 0.5, 3),  # who was cut off at 2 would have gone beyond
        ((1, 2, 2, 2), (0, 0, 0, 1), 0.9, 2),  # ends come before cuts at the same value; the last stands in
        ((5,), (0,), 0.5, 5),
    ],
)
def test_quantiles_of_what_was_cut_off(
    values: tuple[float, ...], known: tuple[int, ...], level: float, expected: float
) -> None:
    assert censored_quantile(np.array(values, float), np.array(known, bool), level) == expected


def test_figures_within_sources_do_not_gain_from_their_mixture() -> None:
    """A prediction that knows the source alone ranks the mixture well, and nothing within."""
    rng = np.random.default_rng(4)
    rows = [Row(name, "", int(base + rng.integers(50))) for name, base in (("image", 5), ("headrace", 300))] * 1
    rows = [Row(r.source, "", int(r.output_tokens + rng.integers(50))) for r in rows for _ in range(200)]
    guess = np.array([10.0 if row.source == "image" else 300.0 for row in rows])
    found = point_figures(guess + rng.random(len(rows)) * 1e-3, rows)
    assert found["kendall_tau"] > 0.4
    assert all(abs(value) < 0.12 for value in found["by_source"].values())


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_every_source_of_the_data_has_its_licence() -> None:
    rows = read_texts(DATA)
    assert {row.source for row in rows} <= SOURCES.keys()
    assert len({row.prompt for row in rows}) > 7_000
    assert min(row.output_tokens for row in rows) >= 1
