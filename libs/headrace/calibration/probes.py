"""What is asked, in which order, and the answers by probe.

Rounds repeat every probe, each round in an order of its own: a machine that is slow for some seconds slows a repetition
of each a little rather than one of them wholly.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from statistics import median

from headrace.calibration.asking import Answer, Asker, picture
from headrace.calibration.shape import Shape

STEADY_TOKENS = 24  # of a batch that decodes, measured at least
WARM_UPS = 3
ANSWER_TOKENS_MAX = 512
PROBE_S_MAX = 8.0  # a slow engine is measured with smaller batches of shorter prompts
_COMMENT = b"\xff\xfe\x00\x0a"  # of a JPEG: eight bytes follow
QUICK_PICTURES = ((64, 64, 1), (400, 300, 1), (640, 480, 1), (800, 600, 1), (400, 300, 6))
LOOKS = 5  # at pictures in a round: reading one takes milliseconds, and a scheduler's turn as many
SETTLE_S = 0.05  # between probes: ends are stored and room is freed


@dataclass(frozen=True, slots=True)
class Steady:
    """So many prompts of such a length at once, each with a longer answer."""

    tokens: int
    count: int

    def __str__(self) -> str:
        return f"{self.count} x {self.tokens} tokens"


@dataclass(frozen=True, slots=True)
class InARow:
    """Prompts at once, one token each: prefill takes them one after the other."""

    tokens: int
    count: int

    def __str__(self) -> str:
        return f"{self.count} prompts of {self.tokens} in a row"


@dataclass(frozen=True, slots=True)
class Pictured:
    """One question with so many like pictures."""

    width: int
    height: int
    count: int

    def __str__(self) -> str:
        return f"{self.count} of {self.width} x {self.height} px"


Probe = Steady | InARow | Pictured


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int = 7
    lengths: tuple[int, ...] = (48, 96, 192, 384, 768, 1536)  # of prompts, tokens
    batches: tuple[int, ...] = (2, 4, 8, 16)
    pictures: tuple[tuple[int, int, int], ...] = (
        (64, 64, 1),
        (320, 240, 1),
        (800, 600, 1),
        (1600, 1200, 1),
        (320, 240, 2),
        (320, 240, 4),
        (320, 240, 12),
    )
    seed: int = 1

    @staticmethod
    def quick(seed: int = 1) -> "Plan":
        return Plan(3, (48, 128, 320, 640), (2, 4, 8), QUICK_PICTURES, seed)

    def with_rounds(self, rounds: int) -> "Plan":
        return replace(self, rounds=rounds)

    def probes(self, shape: Shape, least_tokens: int) -> list[Probe]:
        """Those that this mesh has room for."""
        most = shape.prompt_tokens_max
        lengths = [tokens for tokens in self.lengths if least_tokens < tokens <= most] or [least_tokens + 8]
        short, long = lengths[0], lengths[len(lengths) * 3 // 4]
        probes: list[Probe] = [Steady(tokens, 1) for tokens in lengths]
        for count in self.batches:
            room = shape.blocks * shape.limits.block_tokens // count
            probes += [Steady(tokens, count) for tokens in {short, long} if count <= shape.slots and 2 * tokens < room]
        probes += [InARow(tokens, 3) for tokens in lengths if 3 * tokens <= most]
        if shape.takes_images:
            probes += [Pictured(*each) for each in self.pictures]
        return probes


@dataclass(slots=True)
class Measured:
    """Answers of each probe, one list a round."""

    answers: dict[Probe, list[list[Answer]]] = field(default_factory=dict)

    def of(self, kind: type[Probe]) -> list[tuple[Probe, list[list[Answer]]]]:
        return [(probe, rounds) for probe, rounds in self.answers.items() if isinstance(probe, kind)]

    @property
    def lone(self) -> list[Answer]:
        """Every text that had the mesh to itself."""
        return [
            answer
            for probe, rounds in self.answers.items()
            if isinstance(probe, Steady) and probe.count == 1
            for answers in rounds
            for answer in answers
        ]


async def measure(asker: Asker, shape: Shape, plan: Plan, say: Callable[[str], None]) -> Measured:
    """Raises CalibrationError: a question was not answered."""
    await asker.learn()
    probes = plan.probes(shape, asker.least_tokens)
    for _ in range(WARM_UPS):
        await asker.ask(asker.text(max(each.tokens for each in probes if isinstance(each, Steady))), 8)
    measured, order = Measured(), Random(plan.seed)
    pictures = {each: _pictures(each, asker.rng) for each in probes if isinstance(each, Pictured)}
    for each in await _too_long(asker, pictures, shape.prompt_tokens_max):
        probes.remove(each)
        say(f"left out, for a prompt here has at most {shape.prompt_tokens_max} tokens: {each}")
    for number in range(plan.rounds):
        order.shuffle(probes)
        if not number:  # lone prompts tell how long the answers of batches must be
            probes.sort(key=_lone_first)
        for probe in list(probes):
            if measured.lone and _takes_s(probe, measured.lone) > PROBE_S_MAX:
                probes.remove(probe)
                say(f"left out, for it would take more than {PROBE_S_MAX:g} s: {probe}")
                continue
            for _ in range(LOOKS if isinstance(probe, Pictured) else 1):
                answers = await _ask(asker, probe, measured, pictures)
                measured.answers.setdefault(probe, []).append(answers)
                await asyncio.sleep(SETTLE_S)
        say(f"round {number + 1} of {plan.rounds}: {len(probes)} probes")
    return measured


async def _too_long(asker: Asker, pictures: dict[Pictured, list[bytes]], tokens_max: int) -> list[Pictured]:
    """Those that a prompt has no room for, by what one picture of each size takes. The first one asked also loads what
    an encoder reads pictures with."""
    tokens: dict[tuple[int, int], int] = {}
    for probe, data in pictures.items():
        if (size := (probe.width, probe.height)) not in tokens:
            answer = await asker.ask("What is this?", 2, [_fresh(data[0], asker.rng)])
            tokens[size] = answer.media_tokens
    room = tokens_max - asker.least_tokens
    return [each for each in pictures if each.count * tokens[each.width, each.height] > room]


async def _ask(asker: Asker, probe: Probe, measured: Measured, pictures: dict[Pictured, list[bytes]]) -> list[Answer]:
    if isinstance(probe, Pictured):
        fresh = [_fresh(data, asker.rng) for data in pictures[probe]]
        return [await asker.ask("What is this?", 2, fresh)]
    if isinstance(probe, InARow):
        return await asker.ask_together(probe.tokens, probe.count, 1)
    return await asker.ask_together(probe.tokens, probe.count, _answer_tokens(probe, measured.lone))


def _lone_first(probe: Probe) -> tuple[bool, int]:
    """The shortest before the longer ones: each says how long the next will take."""
    lone = isinstance(probe, Steady) and probe.count == 1
    return not lone, probe.tokens if isinstance(probe, Steady) else 0


def _takes_s(probe: Probe, lone: Sequence[Answer]) -> float:
    """By what lone prompts took."""
    if isinstance(probe, Pictured):
        return 0.0
    begin_s, gap_s = _alone(probe.tokens, lone)
    answer_tokens = _answer_tokens(probe, lone) if isinstance(probe, Steady) else 1
    return probe.count * begin_s + answer_tokens * gap_s


def _alone(tokens: int, lone: Sequence[Answer]) -> tuple[float, float]:
    """Of prompts of about that length: seconds to the second token, and between later ones."""
    nearest = min(abs(answer.prompt_tokens - tokens) for answer in lone)
    like = [answer for answer in lone if abs(answer.prompt_tokens - tokens) == nearest]
    begin_s = median(answer.token_s[1] - answer.asked_s for answer in like)
    gap_s = median((answer.token_s[-1] - answer.token_s[1]) / (len(answer.token_s) - 2) for answer in like)
    return begin_s * max(1.0, tokens / like[0].prompt_tokens), gap_s


def _answer_tokens(probe: Steady, lone: Sequence[Answer]) -> int:
    """Long enough that the first is not done before the last has begun."""
    if probe.count == 1 or not lone:
        return STEADY_TOKENS
    begin_s, gap_s = _alone(probe.tokens, lone)
    return min(ANSWER_TOKENS_MAX, STEADY_TOKENS + math.ceil(1.5 * probe.count * begin_s / max(gap_s, 1e-4)))


def _pictures(probe: Pictured, rng: Random) -> list[bytes]:
    return [picture(probe.width, probe.height, rng) for _ in range(probe.count)]


def _fresh(data: bytes, rng: Random) -> bytes:
    """The same JPEG with another comment: no cache has seen it before."""
    return data[:2] + _COMMENT + rng.randbytes(8) + data[2:]
