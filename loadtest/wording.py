"""Prompts of a wanted length: of so many words, or of so many tokens of the model that a mesh serves.

The mesh itself is asked what words count, so any tokenizer will do; prompts share no beginning beyond the template,
so that a prefix cache finds nothing in them.
"""

import asyncio
from dataclasses import dataclass
from random import Random

from headrace.client.aio import AsyncClient
from headrace.client.errors import HeadraceError

# Short common words: one token each in the vocabularies of large models, whose space belongs to the word.
WORDS = (
    *("river", "mill", "water", "wheel", "stone", "count", "green", "field", "seven", "bridge", "light", "paper"),
    *("a", "of", "in", "old"),
)
OPENING = "Read"
_REPEATS = 8  # of a word in the prompt that tells its tokens


def text_of_words(words: int, rng: Random) -> str:
    return " ".join(rng.choices(WORDS, k=max(1, words))).capitalize() + "."


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What a prompt's pieces count, in tokens."""

    template_tokens: float  # of a message that says OPENING alone
    word_tokens: dict[str, float]
    stop_tokens: float  # of a full stop at the end

    def text(self, tokens: int, rng: Random) -> str:
        """A text whose whole prompt, template included, is `tokens` long: exact where the template leaves room."""
        left, words = tokens - self.template_tokens, list[str]()
        dearest = max(self.word_tokens.values())
        while (count := int(left / dearest)) > 0:
            drawn = rng.choices(WORDS, k=count)
            left -= sum(self.word_tokens[word] for word in drawn)
            words += drawn
        while left >= min(self.word_tokens.values()) and left != self.stop_tokens:
            word = self._last(left)
            left -= self.word_tokens[word]
            words.append(word)
        return " ".join((OPENING, *words)) + ("." if left >= self.stop_tokens else "")

    def _last(self, left: float) -> str:
        """The dearest word that still fits."""
        return max((word for word in WORDS if self.word_tokens[word] <= left), key=lambda word: self.word_tokens[word])


async def calibrate(client: AsyncClient, model: str = "") -> Lexicon:
    """Asks the mesh a few short questions. Raises HeadraceError: it does not answer."""
    texts = [OPENING, OPENING + ".", *(OPENING + f" {word}" * _REPEATS for word in WORDS)]
    template, stopped, *repeated = await asyncio.gather(*(_prompt_tokens(client, text, model) for text in texts))
    costs = {word: (tokens - template) / _REPEATS for word, tokens in zip(WORDS, repeated, strict=True)}
    if min(costs.values()) <= 0:
        raise HeadraceError("the mesh counts a longer prompt as no longer: prompts of a wanted length cannot be made")
    return Lexicon(template, costs, stopped - template)


async def _prompt_tokens(client: AsyncClient, text: str, model: str) -> int:
    stream = client.generate(text, model=model, max_tokens=1, ignore_eos=True)
    await stream.text()
    return stream.usage.prompt_tokens
