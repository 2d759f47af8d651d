"""Questions about images, sound and video for the length predictor, with the rows that the model answers from.

Training pictures and clips alone: the test split belongs to `headrace bench answers`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from headrace.core.types import Media, MediaMeta, Prompt
from headrace.engines.families.smollm2 import SmolLM2
from headrace.modalities import Encoder, Rows, modality
from headrace.modalities.image import letterbox
from headrace.modalities.mel import log_mel
from headrace.modalities.video import FRAMES_MAX
from headrace.training.media_questions import Scene, ask_about
from headrace.training.pictures import Picture, draw_digits, draw_shapes
from headrace.training.questions import ask, draw_layout, message
from headrace.training.speech import Clip, Recordings

_IMAGES = ((1, 60), (2, 15), (3, 12), (4, 8), (6, 3), (8, 2))  # (how many, how often)
_FRAMES = (2, 5, 6, 6, 3, 2, 1, 1)  # how often videos have 1, 2 ... frames
_UNSEEN_SHARE = 0.3  # wordings that the adapter was not trained on are asked, too


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with all that the engine needs."""

    source: str
    text: str
    prompt: Prompt
    parts: tuple[tuple[str, int], ...] = ()
    media_tokens: int = 0
    embeddings: tuple[Rows, ...] = ()


class Studio:
    """Draws scenes and asks about them."""

    def __init__(self, family: SmolLM2, recordings: Path | None, seed: int) -> None:
        self._family, self._rng = family, Random(seed)
        pictures = draw_digits("train", 1, seed) + draw_shapes("train", 600, seed)
        self._pictures = [picture for picture in pictures if picture.pixels.size]
        self._recordings = Recordings(recordings, "train") if recordings else None
        names = ("image", "video", *(("audio",) if recordings else ()))
        self._encoders: dict[str, Encoder] = {name: modality(name).load(1) for name in names}

    def about_images(self) -> Asked:
        count = self._rng.choices([n for n, _ in _IMAGES], [often for _, often in _IMAGES])[0]
        pictures = [self._rng.choice(self._pictures) for _ in range(count)]
        question = ask([picture.label for picture in pictures], self._rng, self._unseen())
        return self._asked("image", question.text, [self._image(picture) for picture in pictures])

    def about_video(self) -> Asked:
        count = self._rng.choices(range(1, FRAMES_MAX + 1), _FRAMES)[0]
        frames = [self._rng.choice(self._pictures) for _ in range(count)]
        question = ask_about(Scene(frames=tuple(frame.label for frame in frames)), self._rng, self._unseen())
        pixels = np.stack([letterbox(Image.fromarray(frame.pixels)) for frame in frames])
        return self._asked("video", question.text, [("video", self._encoders["video"].encode([pixels])[0])])

    def about_sound(self) -> Asked | None:
        """None without recordings."""
        if self._recordings is None:
            return None
        rng = self._rng
        clip = self._recordings.sequence(rng, rng.choice((1, 2, 2, 3, 3, 4, 5)), True)
        pictures = [rng.choice(self._pictures)] if rng.random() < 0.3 else []
        scene = Scene(tuple(picture.label for picture in pictures), (clip,))
        question = ask_about(scene, rng, self._unseen())
        return self._asked("audio", question.text, [*map(self._image, pictures), self._sound(clip)])

    def _unseen(self) -> bool:
        return self._rng.random() < _UNSEEN_SHARE

    def _image(self, picture: Picture) -> tuple[str, Rows]:
        return "image", self._encoders["image"].encode([letterbox(Image.fromarray(picture.pixels))])[0]

    def _sound(self, clip: Clip) -> tuple[str, Rows]:
        return "audio", self._encoders["audio"].encode([log_mel(clip.sound)])[0]

    def _asked(self, source: str, text: str, parts: Sequence[tuple[str, Rows]]) -> Asked:
        media = [Media(MediaMeta(kind, "", 0, 0, 1), "", len(rows)) for kind, rows in parts]
        turn = message(text, len(media), draw_layout(len(media), self._rng), self._rng)
        counts = tuple(sorted(Counter(kind for kind, _ in parts).items()))
        rows = tuple(rows for _, rows in parts)
        return Asked(source, text, self._family.render([turn], media), counts, sum(map(len, rows)), rows)
