"""What requests hold: one small class for each kind of traffic draws text, media and answers for a block of times.

Blocks are arrays because a week is a million requests; the Arrivals come out one by one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from headrace.workload import fitted
from headrace.workload.arrival import Arrival, Part
from headrace.workload.quantiles import Ints, Quantiles, Shares
from headrace.workload.rates import Floats, require

Parts = tuple[Part, ...]


class Content(Protocol):
    def fill(self, rng: Generator, times: Floats) -> Iterator[Arrival]:
        """One Arrival for each time, in their order."""
        ...


@dataclass(frozen=True)
class Text:
    input: Quantiles = fitted.LMM_CONTEXT_TEXT
    output: Quantiles = fitted.LMM_OUTPUT_TEXT

    def fill(self, rng: Generator, times: Floats) -> Iterator[Arrival]:
        n = len(times)
        return map(Arrival, times.tolist(), self.input.counts(rng, n).tolist(), self.output.counts(rng, n).tolist())


@dataclass(frozen=True)
class Sizes:
    """Width and height as s √a and s / √a: log-normal scale s and log-normal aspect a, so both sides have one law.

    Median 500 px [P]; the spreads make P95 1,100 px, as ModServe tells only that it is above 1,000 [I].
    """

    median_px: float = fitted.IMAGE_SIDE_MEDIAN_PX
    spread: float = 0.436  # standard deviation of ln s
    aspect_spread: float = 0.40  # of ln a: two thirds of the images lie within 2:3 and 3:2
    least_px: int = 16
    most_px: int = 8192

    def __post_init__(self) -> None:
        require(self.median_px > 0, "median_px", "above 0")
        require(self.spread >= 0 and self.aspect_spread >= 0, "spread", "not negative")
        require(1 <= self.least_px <= self.most_px, "least_px", "at least 1 and at most most_px")

    def draw(self, rng: Generator, n: int) -> tuple[Ints, Ints]:
        scale = math.log(self.median_px) + self.spread * rng.standard_normal(n)
        half = self.aspect_spread / 2 * rng.standard_normal(n)
        return self._pixels(scale + half), self._pixels(scale - half)

    def _pixels(self, logs: Floats) -> Ints:
        return np.clip(np.rint(np.exp(logs)), self.least_px, self.most_px).astype(np.int64)


SIZES = Sizes()


@dataclass(frozen=True)
class Counting:
    """How many images a request holds: `calm` outside bursts, `burst` within; `starts` are the stays of Switching."""

    calm: Shares
    burst: Shares
    starts: Floats = field(default_factory=lambda: np.zeros(1))
    bursting: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, dtype=np.bool_))

    def draw(self, rng: Generator, times: Floats) -> Ints:
        calm, burst = self.calm.draw(rng, len(times)), self.burst.draw(rng, len(times))
        now = self.bursting[np.searchsorted(self.starts, times, side="right") - 1]
        return np.where(now, burst, calm)


@dataclass(frozen=True)
class Images:
    """Requests with images. The prompt's tokens are drawn as the trace counts them, images included; `token_share` of
    them are taken to be the images', the rest is the text (at least 1).

    Part.tokens stays 0, so that a model counts from the size; with `count_tokens` the drawn image tokens are divided
    evenly, as the trace's model counted them. Each image has a size of its own.
    """

    counting: Counting
    context: Quantiles = fitted.LMM_CONTEXT_IMAGE
    output: Quantiles = fitted.LMM_OUTPUT_IMAGE
    token_share: float = fitted.IMAGE_TOKEN_SHARE
    sizes: Sizes = SIZES
    count_tokens: bool = False

    def fill(self, rng: Generator, times: Floats) -> Iterator[Arrival]:
        n = len(times)
        counts = self.counting.draw(rng, times)
        context = self.context.counts(rng, n)
        image_tokens = np.rint(context * self.token_share).astype(np.int64)
        text = np.maximum(context - image_tokens, 1)
        output = self.output.counts(rng, n)
        each = np.maximum(image_tokens // counts, 1) if self.count_tokens else np.zeros_like(counts)
        parts = self._parts(rng, counts, each)
        return map(Arrival, times.tolist(), text.tolist(), output.tolist(), parts)

    def _parts(self, rng: Generator, counts: Ints, tokens: Ints) -> Iterator[Parts]:
        widths, heights = self.sizes.draw(rng, int(counts.sum()))
        sizes = zip(widths.tolist(), heights.tolist(), strict=True)
        for count, each in zip(counts.tolist(), tokens.tolist(), strict=True):
            yield tuple([Part("image", *next(sizes), 0.0, each) for _ in range(count)])


@dataclass(frozen=True)
class Clips:
    """Requests with one audio or video clip. Lengths, sizes and prompts are ours [I]: no public trace has them
    (ServeGen's mm-audio and mm-video were not to be had), so set them to what you serve."""

    modality: str
    median_s: float
    spread: float = 0.8  # of ln duration: P95 is 3.7 medians
    most_s: float = 600.0
    width: int = 0
    height: int = 0
    input: Quantiles = fitted.LMM_CONTEXT_TEXT
    output: Quantiles = fitted.LMM_OUTPUT_TEXT

    def __post_init__(self) -> None:
        require(0 < self.median_s <= self.most_s, "median_s", "above 0 and at most most_s")
        require(self.spread >= 0, "spread", "not negative")

    def fill(self, rng: Generator, times: Floats) -> Iterator[Arrival]:
        n = len(times)
        seconds = np.minimum(self.median_s * np.exp(self.spread * rng.standard_normal(n)), self.most_s)
        parts = [(Part(self.modality, self.width, self.height, max(s, 0.1)),) for s in seconds.round(2).tolist()]
        text, output = self.input.counts(rng, n), self.output.counts(rng, n)
        return map(Arrival, times.tolist(), text.tolist(), output.tolist(), parts)


AUDIO = Clips("audio", median_s=8.0)  # a spoken question [I]
VIDEO = Clips("video", median_s=15.0, width=640, height=360)  # a short clip [I]
