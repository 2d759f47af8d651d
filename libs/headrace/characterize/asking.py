"""Questions put to a mesh by the SDK: of a length and with pictures that nobody has asked before."""

import asyncio
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image as Pictures

from headrace.characterize.spans import attribute
from headrace.client import Image
from headrace.client.aio import AsyncClient
from headrace.client.errors import HeadraceError
from headrace.client.types import Stage

# About a token each, drawn anew for each prompt, so that a prefix cache finds nothing in them.
WORDS = ("river", "mill", "water", "wheel", "stone", "count", "green", "field", "seven", "bridge", "light", "paper")
_COARSE_PX = 12


@dataclass(frozen=True, slots=True)
class Question:
    words: int
    sides_px: tuple[int, ...] = ()  # a square picture each
    max_tokens: int = 16

    @property
    def kind(self) -> str:
        return f"{len(self.sides_px)} x {self.sides_px[0]} px" if self.sides_px else "text"


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds since the question."""

    ttft_s: float
    end_s: float
    tokens: int
    media_tokens: int = 0
    spans: tuple[Stage, ...] = ()
    failed: str = ""

    @property
    def stages(self) -> dict[str, float]:
        return attribute(self.spans, self.ttft_s)


class Asker:
    """Asks one mesh; `rng` draws words and pictures."""

    def __init__(self, client: AsyncClient, rng: Random, timeout_s: float, model: str = "") -> None:
        self._client = client
        self._rng = rng
        self._timeout_s = timeout_s
        self._model = model

    async def ask(self, question: Question) -> Answer:
        """A request that fails is an Answer with its reason: one must not end the rest."""
        prompt = " ".join(self._rng.choice(WORDS) for _ in range(question.words))
        images = [Image(picture(self._rng, side)) for side in question.sides_px]
        began_s, first_s, tokens, failed = time.perf_counter(), 0.0, 0, ""
        stream = self._client.generate(
            prompt,
            images=images,
            model=self._model,
            max_tokens=question.max_tokens,
            temperature=0.0,
            ignore_eos=True,
            timeout_s=self._timeout_s,
        )
        try:
            async for delta in stream:
                tokens += len(delta.tokens)
                if tokens and not first_s:
                    first_s = time.perf_counter() - began_s
        except HeadraceError as error:
            failed = f"{type(error).__name__}: {error}"
        end, media = stream.end, 0
        if end is not None:
            media = end.usage.image_tokens
        spans = end.timeline if end is not None else ()
        if not tokens and not failed:
            failed = "it ended without a token"
        return Answer(first_s, time.perf_counter() - began_s, tokens, media, spans, failed)

    async def one_by_one(self, question: Question, count: int) -> list[Answer]:
        return [await self.ask(question) for _ in range(count)]

    async def at_once(self, question: Question, callers: int, rounds: int) -> tuple[list[Answer], float]:
        """So many callers, each asking again when it has its answer; and the seconds that all took."""
        began_s = time.perf_counter()
        asked = await asyncio.gather(*(self.one_by_one(question, rounds) for _ in range(callers)))
        return [answer for each in asked for answer in each], time.perf_counter() - began_s

    async def poisson(self, question: Question, rate_rps: float, seconds: float, most: int) -> list[Answer]:
        """An open loop: whoever comes waits for nobody. `most` bounds what is asked."""
        if rate_rps <= 0:
            return []
        began_s, at_s = time.perf_counter(), self._rng.expovariate(rate_rps)
        running: list[asyncio.Task[Answer]] = []
        while (at_s < seconds or not running) and len(running) < most:
            await asyncio.sleep(max(0.0, began_s + at_s - time.perf_counter()))
            running.append(asyncio.create_task(self.ask(question)))
            at_s += self._rng.expovariate(rate_rps)
        return list(await asyncio.gather(*running))


def picture(rng: Random, side_px: int) -> bytes:
    """A JPEG of smooth colours, another one each time: no cache of embeddings has it."""
    coarse = np.array([rng.randrange(256) for _ in range(_COARSE_PX**2 * 3)], np.uint8)
    small = Pictures.fromarray(coarse.reshape(_COARSE_PX, _COARSE_PX, 3))
    out = io.BytesIO()
    small.resize((side_px, side_px), Pictures.Resampling.BICUBIC).save(out, "JPEG", quality=85)
    return out.getvalue()


def median(values: Sequence[float], share: float = 0.5) -> float:
    """Or another quantile; nan of nothing."""
    return float(np.quantile(values, share)) if len(values) else float("nan")
