"""Questions about sound, about video and about images and sound together, each with exactly one right answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from headrace.engines.families.smollm2 import ORDINALS
from headrace.training.pictures import WORDS, Digit, Label
from headrace.training.questions import WORDINGS as IMAGE_WORDINGS
from headrace.training.questions import Question
from headrace.training.speech import Clip

COUNTS = (*WORDS[1:], "ten")

# kind -> (trained wordings, wordings kept apart)
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "spoken_digit": (
        (
            "Which digit is spoken?",
            "What digit do you hear?",
            "Which number does the speaker say?",
            "What is the spoken digit?",
        ),
        ("Which digit do you hear?",),
    ),
    "spoken_digits": (
        (
            "Which digits are spoken?",
            "What digits do you hear, in order?",
            "List the spoken digits.",
            "Which digits does the speaker say?",
        ),
        ("Which digits do you hear?",),
    ),
    "transcribe": (
        ("Transcribe the audio.", "Write down what is said.", "What does the speaker say?", "What is said?"),
        ("Please transcribe this audio.",),
    ),
    "which_audio": (
        ("Transcribe the {} audio.", "What is said in the {} audio?", "Write down the {} audio."),
        ("What does the speaker say in the {} audio?",),
    ),
    "seen_digit": (
        ("What digit is in the image?", "Which digit is shown in the image?", "Read the digit in this picture."),
        ("Which number is in this picture?",),
    ),
    "both_digits": (
        ("What digit is in the image and which digit is spoken?", "Which digit do you see and which do you hear?"),
        ("Tell me the digit in the image and the spoken digit.",),
    ),
    "both": (
        ("Describe the image and transcribe the audio.", "What is in the image and what is said?"),
        ("What do you see and what does the speaker say?",),
    ),
    "frames": (
        (
            "What digits are in the video, in order?",
            "List the digits in the video.",
            "Which digits does the video show, in order?",
            "What digits appear in the video, in order?",
        ),
        ("Read the digits in this video.",),
    ),
    "which_frame": (
        (
            "What is in the {} frame?",
            "What does the {} frame show?",
            "Describe the {} frame.",
            "What is in the {} frame of the video?",
        ),
        ("What do you see in the {} frame?",),
    ),
    "frame_count": (("How many frames are there?", "Count the frames."), ("How many frames does the video have?",)),
    "still_digit": (
        ("What digit is in the video?", "Which digit does the video show?"),
        ("What digit do you see in the video?",),
    ),
    "still": (
        ("Describe the video.", "What is in the video?", "What does the video show?"),
        ("What do you see in this video?",),
    ),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What a user sends along: images, then sound; or one video."""

    images: tuple[Label, ...] = ()
    clips: tuple[Clip, ...] = ()
    frames: tuple[Label, ...] = ()


def ask_about(scene: Scene, rng: Random, unseen: bool = False) -> Question:
    """A random question about a scene."""
    kind = rng.choice(_kinds(scene))
    if kind in IMAGE_WORDINGS:
        return _about_images(kind, scene.images, rng, unseen)
    text = rng.choice(WORDINGS[kind][unseen])
    if kind == "which_frame":
        place = rng.choice((0, len(scene.frames) - 1, rng.randrange(len(scene.frames))))
        last = place == len(scene.frames) - 1 and place > 0 and rng.random() < 0.6
        name = "last" if last else ORDINALS[place]
        return Question(kind, text.format(name), f"The {name} frame shows {short(scene.frames[place])}.")
    if kind == "which_audio":
        place = rng.randrange(len(scene.clips))
        return Question(kind, text.format(ORDINALS[place]), transcript(scene.clips[place]))
    return Question(kind, text, _answer(kind, scene))


def _kinds(scene: Scene) -> tuple[str, ...]:
    if scene.frames:
        return _frame_kinds(scene.frames)
    if len(scene.clips) > 1:
        return ("which_audio",)
    heard = _clip_kinds(scene.clips[0])
    if not scene.images:
        return heard
    if len(scene.images) > 1:
        return (*heard, "which", "which")
    image, digits = scene.images[0], scene.clips[0].kind == "digit"
    seen = ("seen_digit",) if isinstance(image, Digit) else ("color", "shape", "corner")
    both = "both_digits" if digits and isinstance(image, Digit) else "both"
    return (*heard, *seen, "describe", both, both)


def _clip_kinds(clip: Clip) -> tuple[str, ...]:
    if clip.kind == "digit":
        return ("spoken_digit", "spoken_digit", "transcribe")
    if clip.kind == "sequence":
        return ("spoken_digits", "spoken_digits", "transcribe")
    return ("transcribe",)


def _frame_kinds(frames: Sequence[Label]) -> tuple[str, ...]:
    digits = all(isinstance(frame, Digit) for frame in frames)
    if len(set(frames)) == 1:
        return ("still_digit", "still", "frame_count") if digits else ("still", "which_frame", "frame_count")
    ordered = ("frames", "frames", "frames") if digits else ()
    return (*ordered, "which_frame", "which_frame", "frame_count")


def short(label: Label) -> str:
    return f"the digit {label.word}" if isinstance(label, Digit) else f"a {label.color} {label.kind}"


def transcript(clip: Clip) -> str:
    text = " ".join(clip.words)
    return f"{text[0].upper()}{text[1:]}."


def _about_images(kind: str, images: Sequence[Label], rng: Random, unseen: bool) -> Question:
    text, label = rng.choice(IMAGE_WORDINGS[kind][unseen]), images[0]
    if kind == "which":
        place = rng.randrange(len(images))
        answer = f"The {ORDINALS[place]} image shows {short(images[place])}."
        return Question(kind, text.format(ORDINALS[place]), answer)
    if isinstance(label, Digit):
        assert kind == "describe"
        return Question(kind, text, f"The image shows the handwritten digit {label.word}, an {label.parity} number.")
    answers = {
        "color": f"The shape is {label.color}.",
        "shape": f"It is a {label.kind}.",
        "corner": f"The shape is at the {label.corner}.",
        "describe": f"The image shows a {label.color} {label.kind} at the {label.corner}.",
    }
    return Question(kind, text, answers[kind])


def _answer(kind: str, scene: Scene) -> str:
    if scene.frames:
        return _about_frames(kind, scene.frames)
    clip = scene.clips[0]
    if kind == "transcribe":
        return transcript(clip)
    if kind == "spoken_digit":
        return f"The spoken digit is {clip.words[0]}."
    if kind == "spoken_digits":
        return f"The spoken digits are {', '.join(clip.words)}."
    image = scene.images[0]
    if kind == "both":
        return f"The image shows {short(image)}. The speaker says: {transcript(clip)}"
    assert isinstance(image, Digit)
    if kind == "both_digits":
        return f"The image shows the digit {image.word} and the spoken digit is {clip.words[0]}."
    return f"The digit is {image.word}."


def _about_frames(kind: str, frames: Sequence[Label]) -> str:
    if kind == "frame_count":
        count = len(frames)
        return "There is one frame." if count == 1 else f"There are {COUNTS[count - 1]} frames."
    if kind == "frames":
        return f"The digits are {', '.join(frame.word for frame in frames if isinstance(frame, Digit))}."
    if kind == "still_digit":
        assert isinstance(frames[0], Digit)
        return f"The digit is {frames[0].word}."
    return f"The video shows {short(frames[0])}."
