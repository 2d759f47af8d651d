"""Questions put to a mesh by the SDK, and when their tokens came; singly, or as a Poisson process asks them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from headrace.client.aio import AsyncClient
from headrace.client.errors import HeadraceError


@dataclass(slots=True)
class Asked:
    """Seconds since the question; tokens and stages as they were told."""

    first_s: float = 0.0
    second_s: float = 0.0
    end_s: float = 0.0
    tokens: list[int] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)  # name -> duration
    failed: str = ""


async def ask(client: AsyncClient, prompt: str, max_tokens: int, images: Sequence[bytes] = ()) -> Asked:
    asked, began_s = Asked(), time.perf_counter()
    stream = client.generate(prompt, images=images, max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    try:
        async for delta in stream:
            now_s = time.perf_counter() - began_s
            asked.tokens += delta.tokens
            if asked.tokens and not asked.first_s:
                asked.first_s = now_s
            if len(asked.tokens) > 1 and not asked.second_s:
                asked.second_s = now_s
    except HeadraceError as error:
        asked.failed = f"{type(error).__name__}: {error}"
    asked.end_s = time.perf_counter() - began_s
    if stream.end is not None:
        for stage in stream.end.timeline:
            asked.stages[stage.stage] = asked.stages.get(stage.stage, 0.0) + stage.end_s - stage.start_s
    return asked


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Arrivals that wait for nobody."""

    rate_rps: float
    seconds: float
    prompt_words: tuple[int, int]  # least and most, uniform
    max_tokens: int
    seed: int

    def arrivals(self) -> list[tuple[float, str]]:
        """(seconds since the start, prompt), the same ones for the same seed; at least three."""
        rng, at_s, out = Random(f"{self.seed} {self.rate_rps}"), 0.0, list[tuple[float, str]]()
        while at_s < self.seconds or len(out) < 3:
            at_s += rng.expovariate(self.rate_rps)
            words = rng.randint(*self.prompt_words)
            out.append((at_s, " ".join(rng.choice(WORDS) for _ in range(words))))
        return out


WORDS = ("river", "mill", "water", "wheel", "stone", "count", "green", "field", "seven", "bridge", "light", "paper")


async def drive(client: AsyncClient, load: OpenLoop) -> tuple[list[Asked], float]:
    """All answers, and the seconds from the first question to the last answer."""
    began_s = time.perf_counter()
    running = []
    for at_s, prompt in load.arrivals():
        await asyncio.sleep(max(0.0, began_s + at_s - time.perf_counter()))
        running.append(asyncio.create_task(ask(client, prompt, load.max_tokens)))
    answers = await asyncio.gather(*running)
    return list(answers), time.perf_counter() - began_s
