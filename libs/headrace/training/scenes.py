"""Rows of questions about sound, video and mixes, for the stage that trains the ear and its prefix.

Images and video frames come as the shipped image encoder embeds them: only the ear and the prefix learn here.
"""

from collections.abc import Iterator, Sequence
from random import Random

import torch
from torch import Tensor, nn

from headrace.core.types import Media, MediaMeta
from headrace.engines.families.smollm2 import WIDTH, SmolLM2
from headrace.modalities.image import ROWS
from headrace.modalities.video import FRAMES_MAX, frame_label
from headrace.training.batches import POOL_ROWS, Batch, Row, branched, cut
from headrace.training.hearing import Spelt
from headrace.training.media_questions import Scene, ask_about
from headrace.training.pictures import Digit, Label
from headrace.training.questions import Question, draw_layout, message

_VIDEOS = 2000
# what a row holds: images, clips, videos; and how often
_MIXES = ((0, 1, 0, 50), (1, 1, 0, 20), (0, 0, 1, 20), (0, 2, 0, 5), (2, 1, 0, 5))
_CLIP_SHARES = (("digit", 2), ("sequence", 4), ("sentence", 4))


class Touch(nn.Module):
    """The last touch on what a reader spells: a gain and a shift of words, and what stands in the rows behind them."""

    def __init__(self, spare: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))
        self.shift = nn.Parameter(torch.zeros(WIDTH))
        self.spare = nn.Parameter(spare.clone())

    def forward(self, rows: Tensor, is_word: Tensor) -> Tensor:
        return torch.where(is_word[..., None], rows * self.gain + self.shift, self.spare)


class Listener(nn.Module):
    """Begin and end vectors of a clip, the last touch, and the prefix of prompts with sound or video."""

    def __init__(self, spare: Tensor, edges: Tensor, past: Tensor) -> None:
        super().__init__()
        self.projector = Touch(spare)
        self.edges = nn.Parameter(edges.clone())  # [2, width]
        self.keys = nn.Parameter(past[:, 0].clone())
        self.values = nn.Parameter(past[:, 1].clone())

    def past(self) -> Tensor:
        return torch.stack([self.keys, self.values], 1)

    def rows(self, spelt: Tensor, is_word: Tensor) -> Tensor:
        """What a reader spells, [n, rows, width] -> [n, rows + 2, width]."""
        begin, end = (self.edges[i].expand(spelt.shape[0], 1, WIDTH) for i in (0, 1))
        return torch.cat([begin, self.projector(spelt, is_word), end], 1)


class Library:
    """All media of a split under one numbering: pictures, then clips, then videos made of pictures."""

    def __init__(
        self, family: SmolLM2, labels: Sequence[Label], images: Tensor, spelt: Spelt, embedding: Tensor, seed: int
    ) -> None:
        """images: the image encoder's rows of each picture, [n, ROWS, width]."""
        self.labels, self.spelt, self._images = labels, spelt, images
        self._markers = embedding[torch.tensor([family.encode(frame_label(i)) for i in range(FRAMES_MAX)])]
        rng = Random(seed)
        digits = [i for i, label in enumerate(labels) if isinstance(label, Digit)]
        self.videos = [_video(digits, len(labels), rng) for _ in range(_VIDEOS)]
        self.clips_at, self.videos_at = len(labels), len(labels) + len(spelt.clips)

    def media(self, index: int) -> Media:
        if index < self.clips_at:
            return _media("image", ROWS)
        if index < self.videos_at:
            return _media("audio", len(self.spelt.rows[index - self.clips_at]) + 2)
        return _media("video", len(self.videos[index - self.videos_at]) * (self._markers.shape[1] + ROWS))

    def scene(self, indices: Sequence[int]) -> Scene:
        return Scene(
            tuple(self.labels[i] for i in indices if i < self.clips_at),
            tuple(self.spelt.clips[i - self.clips_at] for i in indices if self.clips_at <= i < self.videos_at),
            tuple(self.labels[f] for i in indices if i >= self.videos_at for f in self.videos[i - self.videos_at]),
        )

    def embed(self, listener: Listener, indices: Tensor) -> Tensor:
        """See headrace.training.prefix.Embed."""
        parts = []
        for i in indices.tolist():
            if i < self.clips_at:
                parts.append(self._images[i])
            elif i < self.videos_at:
                clip = i - self.clips_at
                parts.append(listener.rows(self.spelt.rows[clip][None], self.spelt.are_words[clip][None])[0])
            else:
                frames = self.videos[i - self.videos_at]
                parts.append(torch.cat([self._markers[: len(frames)], self._images[frames]], 1).flatten(0, 1))
        return torch.cat(parts)


def _video(digits: list[int], pictures: int, rng: Random) -> list[int]:
    count = rng.choices(range(1, FRAMES_MAX + 1), (2, 5, 6, 6, 3, 2, 1, 1)[:FRAMES_MAX])[0]
    only_digits = rng.random() < 0.6
    if rng.random() < 0.3:
        return [rng.choice(digits) if only_digits else rng.randrange(pictures)] * count
    return [rng.choice(digits) if only_digits else rng.randrange(pictures) for _ in range(count)]


def _media(kind: str, tokens: int) -> Media:
    return Media(MediaMeta(kind, "", 0, 0, 1), "", tokens)


class SceneSampler:
    """Draws rows over a library."""

    def __init__(self, family: SmolLM2, library: Library, seed: int, unseen: bool = False) -> None:
        self._family, self._library, self._unseen = family, library, unseen
        self._rng = Random(seed)
        self._clips: dict[str, list[int]] = {}
        for i, clip in enumerate(library.spelt.clips):
            self._clips.setdefault(clip.kind, []).append(library.clips_at + i)
        self._shares = [(kind, weight) for kind, weight in _CLIP_SHARES if kind in self._clips]

    def row(self) -> Row:
        images, clips, videos, _ = self._rng.choices(_MIXES, [weight for *_, weight in _MIXES])[0]
        return self.row_of(images, clips, videos)

    def row_of(self, images: int, clips: int, videos: int, kind: str = "", questions: int = 2) -> Row:
        """kind: of the clips; any if empty."""
        rng, library = self._rng, self._library
        chosen = [rng.randrange(len(library.labels)) for _ in range(images)]
        chosen += [self._clip(kind) for _ in range(clips)]
        chosen += [library.videos_at + rng.randrange(len(library.videos)) for _ in range(videos)]
        scene, media = library.scene(chosen), [library.media(i) for i in chosen]
        layout = draw_layout(len(chosen), rng)
        drawn = [ask_about(scene, rng, self._unseen) for _ in range(2 * questions)]
        distinct: dict[str, Question] = {question.answer: question for question in drawn}
        asked = list(distinct.values())[: questions if layout == "after" else 1]
        prompts = [self._family.render([message(q.text, len(chosen), layout, rng)], media) for q in asked]
        return branched(self._family, prompts[0].spans, [list(p.tokens) for p in prompts], asked, chosen)

    def _clip(self, kind: str) -> int:
        if not kind:
            kind = self._rng.choices([k for k, _ in self._shares], [weight for _, weight in self._shares])[0]
        return self._rng.choice(self._clips[kind])

    def batches(self, token_budget: int) -> Iterator[Batch]:
        """Batches without end: rows of like length together, in random order."""
        while True:
            yield from cut([self.row() for _ in range(POOL_ROWS)], token_budget, self._rng)
