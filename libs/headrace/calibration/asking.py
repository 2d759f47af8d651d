"""Questions of a wanted length, and what an answer's timeline and tokens tell about where its time went."""

import asyncio
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from PIL import Image as Pictures

from headrace.calibration.errors import CalibrationError
from headrace.client import Image, Message
from headrace.client.aio import AsyncClient
from headrace.client.errors import HeadraceError
from headrace.client.types import Stage

# Short common words, about a token each; drawn anew for each prompt, so that a prefix cache finds nothing in them.
WORDS = ("river", "mill", "water", "wheel", "stone", "count", "green", "field", "seven", "bridge", "light", "paper")


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds since the Unix epoch, as the client and the services have them."""

    asked_s: float
    token_s: tuple[float, ...]  # when each token came to the client
    ended_s: float  # ... and the end
    spans: tuple[Stage, ...]
    prompt_tokens: int
    cached_tokens: int = 0
    media_tokens: int = 0

    def last(self, stage: str) -> Stage | None:
        return next((span for span in reversed(self.spans) if span.stage == stage), None)

    def all(self, stage: str) -> tuple[Stage, ...]:
        return tuple(span for span in self.spans if span.stage == stage)

    @property
    def dispatched_s(self) -> float:
        """When the queue manager sent it to prefill."""
        span = self.last("queue")
        assert span is not None, "every answer was dispatched"
        return span.end_s

    @property
    def prefill(self) -> Stage:
        span = self.last("prefill")
        assert span is not None, "every answer was prefilled"
        return span

    @property
    def decoder(self) -> str:
        """The worker that decoded it; of one token: that prefilled it."""
        span = self.last("decode")
        return span.worker if span is not None else self.prefill.worker

    @property
    def handed_over(self) -> Stage | None:
        """From the first token at the prefill worker to the decode worker's engine; None: it stayed."""
        span = self.last("transfer")
        return span if span is not None and span.start_s >= self.prefill.end_s - 1e-6 else None


def picture(width: int, height: int, rng: Random) -> bytes:
    """A JPEG with the weight of a photograph (0.1 to 0.3 bytes a pixel): smooth colours with grain."""
    noise = np.random.default_rng(rng.getrandbits(32))
    coarse = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Pictures.fromarray(coarse).resize((width, height), Pictures.Resampling.BICUBIC), np.float32)
    grain = noise.normal(0, 6, (height, width, 1)).astype(np.float32)
    out = io.BytesIO()
    Pictures.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


@dataclass(slots=True)
class Asker:
    client: AsyncClient
    rng: Random
    timeout_s: float = 120.0  # of a question; a mesh that takes longer alone is not one to calibrate
    _tokens: tuple[float, float] | None = field(default=None)  # of the template, of a word

    async def learn(self) -> None:
        """What the template and a word cost in tokens."""
        one, many = [await self.ask(self._words(words), 1) for words in (1, 101)]
        per_word = (many.prompt_tokens - one.prompt_tokens) / 100
        if per_word <= 0:
            raise CalibrationError("the mesh counts a longer prompt as no longer: prompts of a length cannot be made")
        self._tokens = (one.prompt_tokens - per_word, per_word)

    @property
    def least_tokens(self) -> int:
        assert self._tokens is not None, "learn first"
        return int(sum(self._tokens)) + 1

    def text(self, tokens: int) -> str:
        """About so many tokens, template included; the answer's usage says how many exactly."""
        assert self._tokens is not None, "learn first"
        template, per_word = self._tokens
        return self._words(max(1, round((tokens - template) / per_word)))

    def _words(self, count: int) -> str:
        return " ".join(self.rng.choices(WORDS, k=count))

    async def ask(self, text: str, max_tokens: int, pictures: Sequence[bytes] = ()) -> Answer:
        """Raises CalibrationError: the mesh did not answer, or not in full."""
        content: list[str | Image] = [*(Image(data) for data in pictures), text]
        token_s, asked_s = list[float](), time.time()
        stream = self.client.generate(
            [Message("user", content)],
            max_tokens=max_tokens,
            temperature=0.0,
            ignore_eos=True,
            timeout_s=self.timeout_s,
        )
        try:
            async for delta in stream:
                token_s += [time.time()] * len(delta.tokens)
        except HeadraceError as error:
            raise CalibrationError(f"a question failed ({error}); see headrace status") from error
        end = stream.end
        if end is None or len(token_s) != max_tokens or not end.timeline:
            raise CalibrationError(f"an answer has {len(token_s)} of {max_tokens} tokens, or no timeline")
        usage = end.usage
        return Answer(
            asked_s,
            tuple(token_s),
            time.time(),
            tuple(end.timeline),
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.image_tokens,
        )

    async def ask_together(self, tokens: int, count: int, max_tokens: int) -> list[Answer]:
        texts = [self.text(tokens) for _ in range(count)]
        return list(await asyncio.gather(*(self.ask(text, max_tokens) for text in texts)))
