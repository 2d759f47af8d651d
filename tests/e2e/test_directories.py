"""Hugging Face directories through real processes, encoder, prefill and decode apart, as `headrace bench parity` asks.

One model of each contract: rope positions that follow pictures (Qwen2.5-VL), and cross-attention (Mllama).
"""

from pathlib import Path

import pytest

from loadtest.benches.parity import examine

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "mllama"])
async def test_the_mesh_says_what_transformers_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE_DIR", str(tmp_path / "cache"))
    differences = await examine(name, tmp_path, "torch", None)
    exact = [difference for difference in differences if difference is not None]
    assert len(exact) == len(differences) == 8
    assert max(exact) < 1e-3
