"""The part of the answers bench that is about sound and video: items of the split that training and tuning never see.

Recorded digits need the archive of the Free Spoken Digit Dataset, sentences need espeak-ng; without either there is
no figure for speech, which the bench then says.
"""

import base64
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from headrace.engines.families import TextPart
from headrace.training.clip_files import mp4, wav
from headrace.training.media_questions import Scene, ask_about
from headrace.training.pictures import Picture, Split
from headrace.training.questions import Question, draw_layout, message
from headrace.training.speech import Clip, Recordings, sentences_of, spoken

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "fsdd_600_spoken_digits.tar.gz"
# group -> questions
SPEECH = {"speech_digit": 60, "speech_sequence": 60, "speech_sentence": 60, "speech_mixed": 40, "speech_unseen": 30}
VIDEO = {"video": 50, "video_unseen": 15}
# What counts as `speech`: trained wordings, like the image groups.
SHARE_OF = ("speech_digit", "speech_sequence", "speech_sentence", "speech_mixed")

Draw = Callable[[int], list[Picture]]  # number of pictures -> as many
Content = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ClipItem:
    group: str
    question: Question
    content: Content


def why_not() -> str:
    """What is missing for the speech questions; empty if nothing is."""
    if not ARCHIVE.exists():
        return f"{ARCHIVE.name} is not in {ARCHIVE.parent}"
    return "" if shutil.which("espeak-ng") else "espeak-ng is not installed"


def speech_items(
    split: Split, share: float, draw: Draw, image_part: Callable[[Picture], dict[str, Any]]
) -> list[ClipItem]:
    """The same questions every time; a share keeps the first of each group."""
    rng = Random(f"speech {split}")
    recordings = Recordings(ARCHIVE, split)
    digits = recordings.digits(rng, 1, worn=False)
    rng.shuffle(digits)
    sequences = [recordings.sequence(rng, rng.randint(2, 5), worn=False) for _ in range(SPEECH["speech_sequence"])]
    texts = rng.choices(sentences_of(split), k=SPEECH["speech_sentence"])
    sentences = spoken(split, [(text, "sentence") for text in texts], rng, worn=False)
    pools = {"speech_digit": digits, "speech_sequence": sequences, "speech_sentence": sentences}
    every = [*digits[: len(sequences)], *sequences, *sentences]
    items = []
    for group, count in SPEECH.items():
        mixed, unseen = group == "speech_mixed", group == "speech_unseen"
        clips = pools.get(group) or [rng.choice(every) for _ in range(count)]
        made = [_speech(group, clip, draw(1) if mixed else [], unseen, rng, image_part) for clip in clips[:count]]
        items += made[: round(share * count)]
    return items


def _speech(
    group: str,
    clip: Clip,
    pictures: Sequence[Picture],
    unseen: bool,
    rng: Random,
    image_part: Callable[[Picture], dict[str, Any]],
) -> ClipItem:
    scene = Scene(images=tuple(picture.label for picture in pictures), clips=(clip,))
    audio = {"data": base64.b64encode(wav(clip.sound)).decode(), "format": "wav"}
    parts = [*map(image_part, pictures), {"type": "input_audio", "input_audio": audio}]
    return _item(group, scene, parts, unseen, rng)


def video_items(split: Split, share: float, draw: Draw) -> list[ClipItem]:
    """One to six seconds, each with a picture of its own or all with one."""
    rng = Random(f"video {split}")
    items = []
    for group, count in VIDEO.items():
        made = [_video(group, draw, group == "video_unseen", rng) for _ in range(count)]
        items += made[: round(share * count)]
    return items


def _video(group: str, draw: Draw, unseen: bool, rng: Random) -> ClipItem:
    seconds = rng.choices((1, 2, 3, 4, 5, 6), (1, 4, 5, 5, 2, 1))[0]
    pictures = draw(1) * seconds if rng.random() < 0.3 else draw(seconds)
    url = "data:video/mp4;base64," + base64.b64encode(mp4(pictures)).decode()
    scene = Scene(frames=tuple(picture.label for picture in pictures))
    return _item(group, scene, [{"type": "video_url", "video_url": {"url": url}}], unseen, rng)


def _item(group: str, scene: Scene, media: Content, unseen: bool, rng: Random) -> ClipItem:
    question = ask_about(scene, rng, unseen)
    turn = message(question.text, len(media), draw_layout(len(media), rng), rng)
    content = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else media[part.index] for part in turn.parts
    ]
    return ClipItem(group, question, content)


def figures(items: Sequence[ClipItem], right: Sequence[bool]) -> dict[str, Any]:
    """Shares by group, `speech` over all of SHARE_OF (null where there are none), and shares by kind of question."""
    groups: dict[str, list[bool]] = {name: [] for name in (*SPEECH, *VIDEO)}
    kinds: dict[str, list[bool]] = {}
    for item, ok in zip(items, right, strict=True):
        groups[item.group].append(ok)
        kinds.setdefault(f"{item.group.partition('_')[0]}.{item.question.kind}", []).append(ok)
    speech = [ok for name in SHARE_OF for ok in groups[name]]
    return {
        "speech": _share(speech),
        **{name: _share(values) for name, values in groups.items()},
        "clips_by_question": {name: _share(values) for name, values in sorted(kinds.items())},
        "clips_counts": {name: len(values) for name, values in {"speech": speech, **groups}.items()},
    }


def _share(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
