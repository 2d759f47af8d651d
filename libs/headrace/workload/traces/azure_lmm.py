"""The Azure LMM inference trace of 2025 (ModServe): TIMESTAMP,NumImages,ContextTokens,GeneratedTokens, gzipped or not.

ContextTokens counts text and images in one; how much of it is images, and how large they are, has to be assumed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from headrace.workload import fitted
from headrace.workload.arrival import Arrival, Part
from headrace.workload.content import SIZES, Sizes
from headrace.workload.tables import Bound, CountOrNone, Share
from headrace.workload.traces.base import Clock, Place, Tally, answer, csv_rows, opened, whole

COLUMNS = ("TIMESTAMP", "NumImages", "ContextTokens", "GeneratedTokens")
BLOCK = 4096


@dataclass(frozen=True, slots=True)
class AzureLmm:
    """Of an image request's ContextTokens `image_token_share` are the images', split evenly; the rest, at least 1, is
    text. The default is ServeGen's share [M], not this trace's, which does not tell.

    NumImages above `images_max` is clipped to it, as ModServe clips to 0..16 (0: never), and told. Only perfect squares
    occur above 1: they may be tile grids rather than photos [I]. Sizes are drawn as content.Sizes does, from `seed`.
    `count_tokens` keeps the trace's image tokens in Part.tokens; without it a model counts them from the sizes. A
    request without text and an empty answer are treated as azure-llm does.
    """

    image_token_share: Share = fitted.IMAGE_TOKEN_SHARE
    images_max: CountOrNone = fitted.LMM_IMAGES_CLIP
    count_tokens: bool = True
    sizes: Sizes = SIZES
    seed: Annotated[int, Bound(least=0)] = 1
    skip_bad: bool = False

    def read(self, path: Path, tally: Tally) -> Iterator[Arrival]:
        place, clock = Place(path, tally, self.skip_bad), Clock("TIMESTAMP")
        pixels = self._pixels()

        def parse(cells: list[str]) -> Arrival:
            at_s = clock.seconds(cells[0])
            images, context = whole(cells[1], "NumImages"), whole(cells[2], "ContextTokens", least=1)
            output = answer(whole(cells[3], "GeneratedTokens"), tally)
            if not images:
                return Arrival(at_s, context, output)
            if self.images_max and images > self.images_max:
                tally.mended[f"NumImages above {self.images_max}, clipped"] += 1
                images = self.images_max
            of_images = round(context * self.image_token_share)
            each = max(of_images // images, 1) if self.count_tokens else 0
            parts = tuple([Part("image", *next(pixels), 0.0, each) for _ in range(images)])
            return Arrival(at_s, max(context - of_images, 1), output, parts)

        with opened(path) as text:
            yield from place.requests(csv_rows(place, text, COLUMNS), parse)

    def _pixels(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng(self.seed)
        while True:
            widths, heights = self.sizes.draw(rng, BLOCK)
            yield from zip(widths.tolist(), heights.tolist(), strict=True)
