"""Whole models in the torch engine, encoders in ONNX Runtime: greedy tokens are those of transformers' generate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from headrace.core.types import Key, Media, Sampling
from headrace.engines.base import Embeddings, Engine, SequenceInput
from headrace.engines.families import ChatMessage, Family, MediaPart, TextPart, family
from headrace.engines.registry import load_engine
from tests.checkpoints import picture
from tests.families import reference

torch = pytest.importorskip("torch")

Part = TextPart | MediaPart
NEW_TOKENS = 24
LATE_STEPS = 3  # every other request arrives while the first ones decode


@dataclass(frozen=True)
class Ask:
    text: str
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def pictures(self) -> list[bytes]:
        return [picture(*size, seed=number) for number, size in enumerate(self.sizes)]


TEXTS = (Ask("hello"), Ask("What is the capital of the moon?"), Ask("count: 1 2 3 4 5 6 7 8 9 10 11 12"), Ask("é"))
MIXED = (
    Ask("hello"),
    Ask("what is this?", ((40, 30),)),
    Ask("compare them", ((28, 28), (100, 33))),
    Ask("a longer question about one tall picture, please", ((20, 90),)),
    Ask("three?", ((64, 64), (31, 41), (9, 9))),
    Ask("and text alone again"),
)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "llava", "llava_onevision", "internvl"])
def test_greedy_tokens_are_those_of_generate(kind: str, exported: Callable[[str], Path]) -> None:
    path = exported(kind)
    asks = MIXED if family(str(path)).spec.modalities else TEXTS
    engine = load_engine("torch", str(path), threads=1, slots=8, blocks=1024, chunk_tokens=48)
    sequences = Maker(path).sequences(asks)
    found = drive(engine, sequences)
    wanted = [generate(path, ask) for ask in asks]
    assert found == wanted
    assert sum(len(set(tokens)) for tokens in wanted) > len(asks) * NEW_TOKENS / 2, "tokens that repeat prove little"
    assert len({tuple(tokens) for tokens in wanted}) == len(asks), "answers follow the questions"
    assert engine.blocks_used() == engine.slots_used() == 0


def test_the_picture_decides(exported: Callable[[str], Path]) -> None:
    """Without its picture's embedding, or with another's, an answer is another: parity above means something."""
    path = exported("llava")
    engine = load_engine("torch", str(path), threads=1, slots=8, blocks=256)
    question = "what is this?"
    right, other = Maker(path).sequences([Ask(question, ((40, 30),)), Ask(question, ((30, 40),))])
    none = replace(right, key=Key("none", 1), embeddings=(right.embeddings[0] * 0,))
    assert len({tuple(tokens) for tokens in drive(engine, [right, other, none])}) == 3


class Maker:
    """Sequences through a family and its encoder, as gateway and encoder make them."""

    def __init__(self, path: Path) -> None:
        self.family: Family = family(str(path))
        self.encoder = self.family.modality("image").load(threads=1) if self.family.spec.modalities else None

    def sequences(self, asks: Sequence[Ask]) -> list[SequenceInput]:
        return [self._sequence(ask, number) for number, ask in enumerate(asks)]

    def _sequence(self, ask: Ask, number: int) -> SequenceInput:
        media, rows = list[Media](), list[Embeddings]()
        for data in ask.pictures:
            assert self.encoder is not None
            images = self.family.modality("image")
            meta = images.probe(data)
            media.append(Media(meta, "", images.token_count(meta)))
            rows += self.encoder.encode([self.encoder.preprocess(data, meta)])
        parts: tuple[Part, ...] = (*(MediaPart(index) for index in range(len(media))), TextPart(ask.text))
        prompt = self.family.render([ChatMessage("user", parts)], media)
        sampling = Sampling(max_tokens=NEW_TOKENS, ignore_eos=True)
        return SequenceInput(
            Key(str(number), 1), prompt.tokens, len(prompt.tokens), prompt.spans, tuple(rows), prompt.prefix, sampling
        )


def drive(engine: Engine, sequences: Sequence[SequenceInput]) -> list[list[int]]:
    """Each one's tokens, by number; half of them arrive a few steps late."""
    out: dict[Key, list[int]] = {one.key: [] for one in sequences}
    early, late = sequences[::2], list(sequences[1::2])
    for one in early:
        engine.add(one)
    step = 0
    while engine.has_work() or late:
        for emitted in engine.step().emitted:
            out[emitted.key].append(emitted.token)
            if len(out[emitted.key]) == NEW_TOKENS:
                engine.remove(emitted.key)
        step += 1
        if late and step >= LATE_STEPS:
            engine.add(late.pop(0))
    return [out[one.key] for one in sequences]


def generate(path: Path, ask: Ask) -> list[int]:
    content: Any = [*({"type": "image"} for _ in ask.sizes), {"type": "text", "text": ask.text}]
    if (path / "processor_config.json").exists():
        network = reference.model(path)
        turn = [{"role": "user", "content": content}]
        given = dict(reference.inputs(reference.processor(path), turn, ask.pictures))
    else:
        network, given = reference.text_model(path), reference.text_inputs(path, ask.text)
    with torch.no_grad():
        ids = network.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
    found: list[int] = ids[0, given["input_ids"].shape[1] :].tolist()
    return found
