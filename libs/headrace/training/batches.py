"""Turns questions about pictures into training rows, through the very template that serves them.

Questions that follow the same images share a row as branches; rows are batched by length under a token budget.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from headrace.core.types import Media, MediaMeta, MediaSpan
from headrace.engines.families.smollm2 import END_OF_TURN, IMAGE_PREFIX, SPEC, SmolLM2
from headrace.modalities.image import ROWS
from headrace.training.pictures import Digit, Label
from headrace.training.questions import Question, ask, draw_layout, message

_MEDIA = Media(MediaMeta("image", "image/png", SPEC.embed_width, 1, 1), "", ROWS)
_PREFIX_TOKENS = SPEC.prefix_tokens[IMAGE_PREFIX]
POOL_ROWS = 96  # rows sorted by length together
# (fewest images, most images, weight) of rows with several images: mostly few, some many
_SEVERAL = ((2, 2, 29), (3, 3, 27), (4, 4, 27), (5, 8, 13), (9, 16, 4))


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: images, then one or several questions with their answers as branches."""

    tokens: list[int]
    positions: list[int]
    branches: list[int]  # 0: seen by all; n: seen by branch n alone
    targets: list[tuple[int, int, int]]  # (index of the predicting position, right token, question)
    spans: tuple[MediaSpan, ...]
    pictures: list[int]  # indices into the pool, by part
    questions: list[Question]


@dataclass(frozen=True, slots=True)
class Batch:
    rows: list[Row]
    tokens: Tensor  # int64 [rows, tokens]
    positions: Tensor  # int64 [rows, tokens]
    mask: Tensor  # bool [rows, 1, tokens, prefix + tokens]
    pictures: Tensor  # int64 [images]
    slots: tuple[Tensor, Tensor]  # row and column of each of images x ROWS embeddings
    predicting: tuple[Tensor, Tensor]  # row and column of each predicting position
    targets: Tensor  # int64: the right token there
    owners: list[tuple[int, int]]  # (row, question) of each target


class Sampler:
    """Draws rows over a pool of labelled pictures."""

    def __init__(
        self, family: SmolLM2, labels: Sequence[Label], seed: int, unseen: bool = False, single_share: float = 0.5
    ) -> None:
        self._family = family
        self._labels = labels
        self._rng = Random(seed)
        self._unseen = unseen
        self._single_share = single_share
        self._digits = [i for i, label in enumerate(labels) if isinstance(label, Digit)]
        self._shapes = [i for i, label in enumerate(labels) if not isinstance(label, Digit)]

    def row(self) -> Row:
        if self._rng.random() < self._single_share:
            return self.row_of(1)
        low, high, _ = self._rng.choices(_SEVERAL, [weight for *_, weight in _SEVERAL])[0]
        return self.row_of(self._rng.randint(low, high))

    def row_of(self, images: int, questions: int = 0) -> Row:
        """A row of this many images; questions 0: as many as its layout can share."""
        rng = self._rng
        pictures = self._pictures(images)
        layout = draw_layout(images, rng)
        shared = min(images, 3) if layout == "after" else 1
        labels = [self._labels[i] for i in pictures]
        asked = self._ask(labels, questions or shared)
        media = [_MEDIA] * images
        prompts = [self._family.render([message(q.text, images, layout, rng)], media) for q in asked]
        return branched(self._family, prompts[0].spans, [list(p.tokens) for p in prompts], asked, pictures)

    def _ask(self, labels: Sequence[Label], count: int) -> list[Question]:
        """Up to `count` questions with different answers."""
        drawn = [ask(labels, self._rng, self._unseen) for _ in range(2 * count)]
        return list({question.answer: question for question in drawn}.values())[:count]

    def _pictures(self, images: int) -> list[int]:
        rng = self._rng
        only_digits = rng.random() < (0.55 if images == 1 else 0.62)
        if only_digits:
            return rng.choices(self._digits, k=images)
        if images == 1:
            return rng.choices(self._shapes)
        return [rng.choice(self._digits if rng.random() < 0.4 else self._shapes) for _ in range(images)]

    def batches(self, token_budget: int) -> Iterator[Batch]:
        """Batches without end: rows of like length together, in random order."""
        while True:
            rows = [self.row() for _ in range(POOL_ROWS)]
            yield from cut(rows, token_budget, self._rng)


def branched(
    family: SmolLM2, spans: tuple[MediaSpan, ...], prompts: list[list[int]], asked: list[Question], pictures: list[int]
) -> Row:
    """Everything up to the last image is shared; a lone question is a branch like any other."""
    shared = max(span.offset + span.length for span in spans)
    tokens, positions, branches = prompts[0][:shared], list(range(shared)), [0] * shared
    targets: list[tuple[int, int, int]] = []
    for number, (prompt, question) in enumerate(zip(prompts, asked, strict=True)):
        answer = [*family.encode(question.answer), END_OF_TURN]
        tail = prompt[shared:] + answer[:-1]
        first = len(tokens) + len(prompt) - shared - 1  # the position that predicts the answer's first token
        targets += [(first + i, token, number) for i, token in enumerate(answer)]
        tokens = tokens + tail
        positions += range(shared, shared + len(tail))
        branches += [number + 1] * len(tail)
    return Row(tokens, [_PREFIX_TOKENS + p for p in positions], branches, targets, spans, pictures, asked)


def cut(rows: list[Row], token_budget: int, rng: Random) -> Iterator[Batch]:
    """Batches of rows of like length, in random order."""
    batches: list[list[Row]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.tokens)):
        if batches[-1] and len(row.tokens) * (len(batches[-1]) + 1) > token_budget:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    yield from map(collate, batches)


def collate(rows: list[Row]) -> Batch:
    """Rows padded to the longest; the padding sees and is seen by nothing that counts."""
    width = max(len(row.tokens) for row in rows)
    slots = [(r, span.offset + i) for r, row in enumerate(rows) for span in row.spans for i in range(span.length)]
    places = [(r, at) for r, row in enumerate(rows) for at, _, _ in row.targets]
    return Batch(
        rows,
        _padded([row.tokens for row in rows], width),
        _padded([row.positions for row in rows], width),
        _mask(_padded([row.branches for row in rows], width)),
        torch.tensor([row.pictures[span.part] for row in rows for span in row.spans]),
        (torch.tensor([r for r, _ in slots]), torch.tensor([c for _, c in slots])),
        (torch.tensor([r for r, _ in places]), torch.tensor([c for _, c in places])),
        torch.tensor([token for row in rows for _, token, _ in row.targets]),
        [(r, question) for r, row in enumerate(rows) for _, _, question in row.targets],
    )


def _padded(values: list[list[int]], width: int) -> Tensor:
    return torch.tensor([row + [0] * (width - len(row)) for row in values])


def _mask(branches: Tensor) -> Tensor:
    width = branches.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    seen = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    prefix = torch.ones(len(branches), width, _PREFIX_TOKENS, dtype=torch.bool)
    return torch.cat([prefix, seen & causal], 2)[:, None]
