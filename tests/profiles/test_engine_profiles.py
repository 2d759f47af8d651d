"""The profile engine's packaged profiles cost what they did as linear forms: the old formula is written out here."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.core.cost import StepWork
from headrace.profiles import ProfileError, engine_profile, instance, packaged_engine_profiles


@dataclass(frozen=True, slots=True)
class Linear:
    """max of the fixed costs + prefilled tokens and pairs + decoding sequences and their context."""

    prefill_fixed_s: float = 0.0
    prefill_token_s: float = 0.0
    prefill_pair_s: float = 0.0
    decode_fixed_s: float = 0.0
    decode_sequence_s: float = 0.0
    decode_context_token_s: float = 0.0

    def step_s(self, work: StepWork) -> float:
        fixed_s = max(
            self.prefill_fixed_s if work.prefill_tokens else 0.0,
            self.decode_fixed_s if work.decode_sequences else 0.0,
        )
        prefill_s = work.prefill_tokens * self.prefill_token_s + work.prefill_pairs * self.prefill_pair_s
        decode_s = work.decode_sequences * self.decode_sequence_s
        return fixed_s + prefill_s + decode_s + work.decode_context_tokens * self.decode_context_token_s


OLD = {
    "zero": Linear(),
    "h100-qwen3-8b": Linear(7.7e-3, 3.3e-5, 1.2e-9, 7.7e-3, 7.4e-5, 4.4e-8),
    "a100x8-llama2-70b": Linear(48.8e-3, 8.68e-5, 2.52e-8, 43.5e-3, 4.13e-4, 0.0),
}
KV_BYTES = {"zero": 0, "h100-qwen3-8b": 147456, "a100x8-llama2-70b": 327680}
MEAN_TOKENS = {"zero": 0, "h100-qwen3-8b": 645, "a100x8-llama2-70b": 0}
# The ranges that Splitwise measured: between 64 and 128 tokens the curve climbs from decode's floor to prefill's.
PREFILLS = (128, 200, 512, 1024, 4096, 8192, 16384)
DECODES = (1, 2, 8, 17, 32, 64)


def test_all_are_compared() -> None:
    assert set(packaged_engine_profiles()) == set(OLD)


@pytest.mark.parametrize("name", OLD)
def test_what_stands_beside_the_costs(name: str) -> None:
    profile = engine_profile(name)
    assert (profile.name, profile.kv_bytes_per_token, profile.chunk_tokens) == (name, KV_BYTES[name], 8192)
    assert profile.output.mean_tokens == MEAN_TOKENS[name]


@pytest.mark.parametrize("name", OLD)
def test_pure_prefill(name: str) -> None:
    for tokens in PREFILLS:
        work = StepWork(tokens, tokens * (tokens + 1) // 2)
        assert engine_profile(name).cost.step_s(work) == pytest.approx(OLD[name].step_s(work), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", OLD)
def test_pure_decode(name: str) -> None:
    for sequences in DECODES:
        for context in (0, 100, 1000, 8000):
            work = StepWork(0, 0, sequences, sequences * context)
            assert engine_profile(name).cost.step_s(work) == pytest.approx(OLD[name].step_s(work), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", OLD)
def test_mixed(name: str) -> None:
    for tokens in PREFILLS:
        for sequences in DECODES:
            work = StepWork(tokens, tokens * 500, sequences, sequences * 700)
            assert engine_profile(name).cost.step_s(work) == pytest.approx(OLD[name].step_s(work), rel=1e-6, abs=1e-9)


def test_small_prefills_differ_by_the_floors_at_most() -> None:
    """What the one curve cannot say: 48.8 ms under a short prefill, 43.5 ms under as few sequences."""
    cost, old = engine_profile("a100x8-llama2-70b").cost, OLD["a100x8-llama2-70b"]
    for tokens in range(1, 128):
        work = StepWork(tokens, tokens * (tokens + 1) // 2)
        assert old.step_s(work) - 5.31e-3 < cost.step_s(work) <= old.step_s(work) + 1e-9


def test_any_instance_by_name() -> None:
    profile, engine = instance("h100/mistral-7b/tp1"), engine_profile("h100/mistral-7b/tp1")
    assert (engine.name, engine.source) == (profile.name, profile.source)
    assert (engine.cost, engine.kv_bytes_per_token) == (profile.step, profile.kv_bytes_per_token)
    assert (engine.chunk_tokens, engine.output.mean_tokens) == (profile.chunk_tokens, 0)


def test_an_encoder_takes_what_its_profile_says(tmp_path: Path) -> None:
    plain = 'source = "[I] a test"\nkv_bytes_per_token = 0\n[cost]\ntokens = [0]\ntokens_s = [0.0]\n'
    (tmp_path / "plain.toml").write_text(plain)
    (tmp_path / "encodes.toml").write_text(plain + "[encode]\ntoken_s = 0.02\n")
    (tmp_path / "wrong.toml").write_text(plain + "[encode]\ntoken_s = 0.02\ntile_s = 1\n")
    assert engine_profile(str(tmp_path / "plain.toml")).encode_token_s == 0.0
    assert engine_profile(str(tmp_path / "encodes.toml")).encode_token_s == 0.02
    with pytest.raises(ProfileError, match="tile_s"):
        engine_profile(str(tmp_path / "wrong.toml"))
