"""Qwen2-Audio against transformers: features, rows of clips of any length, prompts, whole answers."""

import json
import wave
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta
from headrace.engines.families.qwen2_audio_clips import Hearing
from headrace.modalities.audio import decode_sound
from tests.checkpoints_more import CLIP_S, build
from tests.families import reference
from tests.families.served import (
    Asked,
    Served,
    conversation,
    generated,
    handed_over,
    logprobs,
    rows_without_torch,
    run,
    serve,
)

pytest.importorskip("torch")

RATE_HZ = 16_000


def clip(samples: int, seed: int = 0) -> bytes:
    """A WAV file of two gliding tones and some noise."""
    rng = np.random.default_rng((seed, samples))
    at = np.arange(samples) / RATE_HZ
    low, high = rng.uniform(100, 400), rng.uniform(800, 3000)
    sound = 0.3 * np.sin(2 * np.pi * low * at * (1 + at)) + 0.2 * np.sin(2 * np.pi * high * at)
    sound += 0.02 * rng.standard_normal(samples)
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((32767 * sound.clip(-1, 1)).astype("<i2").tobytes())
    return out.getvalue()


# The shortest, odd numbers of frames and places, one that is whole tenths, one that fills the window.
LENGTHS = (321, 1_700, 16_000, 20_001, RATE_HZ * CLIP_S)
ASKED: tuple[Asked, ...] = (
    (clip(20_001), "What is this?"),
    ("Tell me a story about nothing at all.",),
    (clip(9_000, 1), "and ", clip(31_000, 2), clip(9_000, 3), "which one is long?"),
    (clip(1_700, 4),),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Served:
    reference.quiet()
    return serve(build("qwen2_audio", tmp_path_factory.mktemp("qwen2_audio")), "audio", cache_dir)


@pytest.fixture(scope="module")
def network(served: Served) -> Any:
    import transformers

    return transformers.Qwen2AudioForConditionalGeneration.from_pretrained(served.path).eval()


@pytest.fixture(scope="module")
def processor(served: Served) -> Any:
    import transformers

    return transformers.Qwen2AudioProcessor(
        transformers.WhisperFeatureExtractor.from_pretrained(served.path),
        transformers.AutoTokenizer.from_pretrained(served.path),
        chat_template=(served.path / "chat_template.jinja").read_text(),
    )


def inputs(processor: Any, asked: Asked) -> Any:
    text = processor.apply_chat_template(conversation(asked, "audio"), add_generation_prompt=True)
    sounds = [decode_sound(part) for part in asked if isinstance(part, bytes)]
    if not sounds:
        return processor(text=text, return_tensors="pt")
    return processor(text=text, audio=sounds, sampling_rate=RATE_HZ, return_tensors="pt")


def rows_of(network: Any, given: Any) -> list[NDArray[np.float32]]:
    """The tower under the reference's own mask, as its forward builds it: only the clip's places are attended to."""
    import torch

    frames = given["feature_attention_mask"].sum(-1)
    places, rows = network.model.audio_tower._get_feat_extract_output_lengths(frames)
    absent = torch.arange(50 * CLIP_S)[None] >= places[:, None]
    mask = torch.where(absent[:, None, None], -torch.inf, 0.0)
    with torch.no_grad():
        states = network.model.audio_tower(given["input_features"], attention_mask=mask).last_hidden_state
        found = network.model.multi_modal_projector(states)
    return [np.asarray(part[:count].numpy(), np.float32) for part, count in zip(found, rows, strict=True)]


def test_prompt_and_rows_are_the_references(served: Served, network: Any, processor: Any) -> None:
    """Clips of different lengths, two of one length among them, come back in their order."""
    asked: Asked = tuple(clip(samples, seed) for seed, samples in enumerate((*LENGTHS, LENGTHS[1])))
    given = inputs(processor, asked)
    assert list(served.prompt(asked).tokens) == given["input_ids"][0].tolist()
    rows = served.embeddings(asked)
    assert [len(part) for part in rows] == [media.tokens for media in served.media(asked)]
    for part, wanted in zip(rows, rows_of(network, given), strict=True):
        np.testing.assert_allclose(part, wanted, atol=1e-4)


def test_features_are_the_references(served: Served, processor: Any) -> None:
    hearing = served.modality.hearing  # type: ignore[attr-defined]
    sound = decode_sound(clip(20_001))
    wanted = inputs(processor, (clip(20_001),))["input_features"][0].numpy()
    found = hearing.frames(sound)
    np.testing.assert_allclose(found, wanted[:, : found.shape[1]], atol=1e-4)


def test_answers_are_those_of_generate(served: Served, network: Any, processor: Any) -> None:
    """Four requests that arrive one after the other, prefilled in chunks beside those that decode."""
    wanted = [generated(network, inputs(processor, asked)).tokens for asked in ASKED]
    assert len({tuple(tokens) for tokens in wanted}) == len(wanted)
    assert all(len(set(tokens)) > 2 for tokens in wanted), "answers that do not vary prove nothing"
    assert run(served.engine(), [served.sequence(number, asked) for number, asked in enumerate(ASKED)]) == wanted


def test_a_decode_worker_goes_on_from_the_kv(served: Served, network: Any, processor: Any) -> None:
    wanted = generated(network, inputs(processor, ASKED[2])).tokens
    assert handed_over(served.engine(), served.engine(), served.sequence(0, ASKED[2]), after=5) == wanted


def test_what_is_wrong_shows(served: Served, network: Any, processor: Any) -> None:
    """The answer hangs on every clip and on the order of its rows."""
    wanted = generated(network, inputs(processor, ASKED[2])).logprobs
    right = served.sequence(0, ASKED[2])
    np.testing.assert_allclose(logprobs(served.engine(), right), wanted, atol=1e-3)
    first, second, third = right.embeddings
    for wrong in (
        replace(right, embeddings=(np.zeros_like(first), second, third)),
        replace(right, embeddings=(first, np.ascontiguousarray(second[::-1]), third)),
        replace(right, embeddings=(third, second, first)),
    ):
        assert np.abs(logprobs(served.engine(), wrong) - wanted).max() > 0.01


def test_services_need_no_torch(served: Served, tmp_path: Path) -> None:
    (wanted,) = served.embeddings((clip(20_001),))
    np.testing.assert_array_equal(rows_without_torch(served, clip(20_001), tmp_path), wanted)


# --- without a model ---


@given(st.integers(1, 480_000))
@settings(max_examples=200, deadline=None)
def test_rows_follow_from_the_length_alone(samples: int) -> None:
    """The processor's arithmetic (Qwen2AudioProcessor._process_audio) on the feature extractor's mask."""
    meta = MediaMeta("audio", "audio/wav", 0, 0, 1, samples / RATE_HZ)
    frames = len(range(0, samples, 160))
    wanted = (((frames - 1) // 2 + 1) - 2) // 2 + 1
    assert Hearing(128, 30).tokens(meta) == wanted


@pytest.mark.parametrize(
    ("samples", "reason"),
    [(300, "hears nothing"), (RATE_HZ * CLIP_S + 8_000, "longer than 3 s")],
    ids=("too short", "too long"),
)
def test_a_clip_that_cannot_be_heard_in_full_is_refused(served: Served, samples: int, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        served.modality.probe(clip(samples))


def test_features_that_are_not_whispers_are_refused(served: Served, tmp_path: Path) -> None:
    from headrace.core.errors import Unavailable
    from headrace.engines.families.directory import open_family

    other = build("qwen2_audio", tmp_path)
    said = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps({**said, "hop_length": 320}))
    with pytest.raises(Unavailable, match="not Whisper's"):
        open_family(other)
