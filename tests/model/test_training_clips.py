"""What the audio adapter is trained on: splits that never meet, answers that are right, words put together in order."""

from random import Random

import numpy as np
import pytest

from headrace.core.types import Media, MediaMeta
from headrace.engines.families import ChatMessage, MediaPart, TextPart
from headrace.engines.families.smollm2 import MEDIA_PREFIX, SmolLM2, load
from headrace.training.media_questions import Scene, ask_about
from headrace.training.pictures import Digit, Shape
from headrace.training.speech import Clip, sentences, sentences_of, voices_of, wear

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model
NONE = np.zeros(0, np.float32)
SEVEN = Clip(NONE, ("seven",), "digit", True)
DIGITS = Clip(NONE, ("one", "one", "nine"), "sequence", True)
LIGHT = Clip(NONE, ("turn", "on", "the", "fan"), "sentence", False)
CIRCLE = Shape("red", "circle", "top left")

# scene -> what may be answered
SCENES = [
    (Scene(clips=(SEVEN,)), {"The spoken digit is seven.", "Seven."}),
    (Scene(clips=(DIGITS,)), {"The spoken digits are one, one, nine.", "One one nine."}),
    (Scene(clips=(LIGHT,)), {"Turn on the fan."}),
    (Scene(clips=(LIGHT, SEVEN)), {"Turn on the fan.", "Seven."}),
    (
        Scene(images=(Digit(4),), clips=(SEVEN,)),
        {
            "The spoken digit is seven.",
            "Seven.",
            "The digit is four.",
            "The image shows the handwritten digit four, an even number.",
            "The image shows the digit four and the spoken digit is seven.",
        },
    ),
    (
        Scene(images=(CIRCLE, Digit(4)), clips=(LIGHT,)),
        {"Turn on the fan.", "The first image shows a red circle.", "The second image shows the digit four."},
    ),
    (
        Scene(frames=(Digit(1), Digit(2))),
        {
            "The digits are one, two.",
            "The first frame shows the digit one.",
            "The second frame shows the digit two.",
            "The last frame shows the digit two.",
            "There are two frames.",
        },
    ),
    (Scene(frames=(Digit(5),)), {"The digit is five.", "The video shows the digit five.", "There is one frame."}),
]


@pytest.fixture(scope="module")
def smollm2() -> SmolLM2:
    return load()


@pytest.mark.parametrize(("scene", "answers"), SCENES)
@pytest.mark.parametrize("unseen", [False, True])
def test_every_question_has_a_right_answer(scene: Scene, answers: set[str], unseen: bool) -> None:
    rng = Random(1)
    assert {ask_about(scene, rng, unseen).answer for _ in range(200)} == answers


def test_splits_never_meet() -> None:
    parts = [set(sentences_of(split)) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(sentences())
    voices = [set(voices_of(split)) for split in ("train", "validation", "test")]
    assert sum(map(len, voices)) == len(set().union(*voices))


def test_worn_sound_stays_sound() -> None:
    tone = np.sin(np.arange(16_000) / 9).astype(np.float32)
    worn = wear(tone, Random(3))
    assert worn.dtype == np.float32
    assert abs(worn).max() <= 1.0
    assert 0.85 * 16_000 < len(worn) < 1.15 * 16_000 + 4_800


def test_words_come_first_and_repeats_only_where_nothing_stands_between(smollm2: SmolLM2) -> None:
    """Rows read as - one one - one two: the words are one, one, two."""
    from headrace.training.hearing import Ear, Reader, Words

    embedding = torch.randn(
        smollm2.spec.vocab_size, smollm2.spec.embed_width, generator=torch.Generator().manual_seed(0)
    )
    words = Words(smollm2, embedding)
    one, two = words.classes(["one", "two"])
    spelt = words.vectors[torch.tensor([0, one, one, 0, one, two])][None]

    class Said(Ear):
        def forward(self, rows: object, lengths: object = None) -> object:
            return spelt

    rows, is_word = Reader(Said(1.0), words)(torch.zeros(1))
    assert is_word.tolist() == [[True, True, True, False, False, False]]
    assert torch.allclose(rows[0, :3], words.vectors[torch.tensor([one, one, two])], atol=0.05)
    assert rows.shape == spelt.shape


def test_media_of_several_kinds_are_named(smollm2: SmolLM2) -> None:
    """Parts of one kind by an ordinal, a lone one by its kind."""

    def part(kind: str, tokens: int) -> Media:
        return Media(MediaMeta(kind, "", 0, 0, 1), "", tokens)

    media = [part("audio", 7), part("image", 6), part("audio", 9)]
    message = ChatMessage("user", (MediaPart(0), MediaPart(1), MediaPart(2), TextPart("What is said?")))
    prompt = smollm2.render([message], media)
    text = b"".join(smollm2.pieces[token] for token in prompt.tokens).decode()
    assert text.startswith(" first audio: image: second audio:What is said?")
    assert [(span.part, span.length, span.modality) for span in prompt.spans] == [
        (0, 7, "audio"),
        (1, 6, "image"),
        (2, 9, "audio"),
    ]
    assert prompt.prefix == MEDIA_PREFIX
    assert smollm2.render([message], [part("image", 6)] * 3).prefix == "image"
