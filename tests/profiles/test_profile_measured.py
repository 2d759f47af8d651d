"""The packaged profiles beside public measurements that took no part in their fit, within stated bands.

The bands are what the comparison showed, with a little room: a refit that leaves them has to say why.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from loadtest.fitting import checks
from loadtest.fitting.checks import Ratio

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no folder of public measurements beside the checkout")

# Splitwise's engines are of 2023 and pay up to 30 ms an iteration on the host: the more GPUs, the larger its share.
BANDS: list[tuple[Callable[[Path], list[Ratio]], str, str, float, float]] = [
    (checks.vidur, "a100/llama-3.1-8b", "tokens", 0.78, 1.16),
    (checks.vidur, "a100/llama-2-70b", "tokens", 0.78, 1.05),
    (checks.vidur, "h100/llama-2-70b", "tokens", 0.80, 1.05),
    (checks.splitwise, "a100/llama-2-70b/tp2", "prefill", 0.75, 0.90),
    (checks.splitwise, "a100/llama-2-70b/tp2", "decode", 0.75, 1.05),
    (checks.splitwise, "a100/llama-2-70b/tp4", "prefill", 0.55, 0.90),
    (checks.splitwise, "a100/llama-2-70b/tp8", "prefill", 0.42, 0.90),
    (checks.splitwise, "h100/llama-2-70b/tp2", "prefill", 0.62, 0.80),
    (checks.mlenergy, "h100/qwen3-32b/tp1", "decode", 0.95, 1.12),
    (checks.mlenergy, "h100/qwen3-32b/tp2", "decode", 0.85, 1.10),
]


@pytest.mark.parametrize(
    ("check", "profile", "what", "low", "high"),
    BANDS,
    ids=[f"{band[0].__name__}-{band[1]}-{band[2]}" for band in BANDS],
)
def test_within_the_band(
    check: Callable[[Path], list[Ratio]], profile: str, what: str, low: float, high: float
) -> None:
    found = [ratio for ratio in check(DATA) if ratio.profile.startswith(profile) and ratio.what == what]
    assert len(found) >= 3
    for ratio in found:
        assert low < ratio.ratio < high, f"{ratio.profile} {what} {ratio.at}: {ratio.ratio:.2f}"


def test_in_the_middle() -> None:
    """Kernels agree with another's profile of the same GPUs; a model unseen by the calibration is met closely."""
    assert 0.85 < median(ratio.ratio for ratio in checks.vidur(DATA)) < 1.05
    assert 0.90 < median(ratio.ratio for ratio in checks.mlenergy(DATA)) < 1.10
