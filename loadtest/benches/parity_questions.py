"""What `headrace bench parity` asks every model: eight requests that differ in length, parts and time of arrival."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.v1 import gateway_pb2
from tests.checkpoints import picture
from tests.model.clip_makers import sound_file


@dataclass(frozen=True, slots=True)
class Part:
    modality: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """One user turn, and how long after the first request it arrives."""

    name: str
    parts: tuple[str | Part, ...]
    arrives_s: float
    max_tokens: int

    @property
    def media(self) -> list[Part]:
        return [part for part in self.parts if isinstance(part, Part)]

    def request(self, model: str, logprobs: int) -> gateway_pb2.GenerateRequest:
        message = gateway_pb2.Message(role="user", content=[_content(part) for part in self.parts])
        request = gateway_pb2.GenerateRequest(model=model, messages=[message])
        request.sampling.max_tokens = self.max_tokens
        request.sampling.ignore_eos = True
        request.sampling.logprobs = logprobs
        return request


def _content(part: str | Part) -> gateway_pb2.ContentPart:
    if isinstance(part, str):
        return gateway_pb2.ContentPart(text=part)
    return gateway_pb2.ContentPart(media=gateway_pb2.MediaInput(modality=part.modality, data=part.data))


LONG = "Say in one sentence what a headrace is, and why the water in it must come at the right rate. " * 3


def questions(modalities: Sequence[str], seed: int) -> list[Question]:
    """Text alone; one part before, behind and between words; two, three and four parts of different sizes."""
    kinds = [kind for kind in modalities if kind in _SAMPLES]
    if not kinds:
        texts = ("Hello!", LONG, "What is the capital of France?", LONG[:120], "a", LONG[:40], "1 2 3 4", LONG[:200])
        return [Question(f"text {n}", (text,), 0.04 * n, 12 + 4 * n) for n, text in enumerate(texts)]

    def media(size: int) -> Part:
        kind = kinds[size % len(kinds)]
        return Part(kind, _SAMPLES[kind](size, seed))

    return [
        Question("text", ("Hello! How are you?",), 0.0, 24),
        Question("one part", (media(0), "What is it?"), 0.0, 24),
        Question("one part, words before", ("Look at this: ", media(1)), 0.02, 16),
        Question("two parts", (media(2), media(3), "Which is larger?"), 0.05, 24),
        Question("long text", (LONG,), 0.1, 32),
        Question("two parts, words between", ("First ", media(4), " then ", media(5), "."), 0.1, 12),
        Question("four parts", (*(media(n) for n in (6, 7, 0, 2)), "Name them in order."), 0.2, 20),
        Question("one large part", (media(8), "What is in it? " + LONG[:90]), 0.4, 28),
    ]


_SIZES = ((32, 32), (48, 20), (21, 60), (100, 70), (28, 28), (64, 64), (90, 30), (33, 77), (180, 140))
_CLIPS_S = (0.6, 1.0, 0.35, 2.2, 0.8, 1.7, 0.5, 1.3, 2.8)


def _image(size: int, seed: int) -> bytes:
    return picture(*_SIZES[size], seed=seed + size)


def _audio(size: int, seed: int) -> bytes:
    """A WAV of three gliding tones in noise."""
    rate, rng = 16_000, np.random.default_rng((seed, size))
    at_s = np.arange(int(_CLIPS_S[size] * rate)) / rate
    tones = sum(np.sin(2 * np.pi * (f + 40 * at_s) * at_s) for f in rng.uniform(120, 3000, 3))
    samples = 0.2 * tones + 0.02 * rng.standard_normal(len(at_s))
    return sound_file(np.clip(samples, -1, 1, dtype=np.float32)[None], rate, "wav", "pcm_s16le")


_SAMPLES = {"image": _image, "audio": _audio}
