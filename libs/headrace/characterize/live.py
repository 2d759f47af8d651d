"""The same questions put to a running mesh: shares of the time to first token, many at once, images beside text.

Through the API alone, whatever model and engine serve. Bounded: Plan says how many requests of which kind, and for how
long.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from headrace.characterize.asking import Answer, Asker, Question, median
from headrace.characterize.errors import LiveError
from headrace.client.aio import AsyncClient
from headrace.client.door import Door
from headrace.client.errors import HeadraceError

ASKED_MAX = 60  # of a kind in one stretch of an open loop
TEXT_BUSY = 0.3  # of the rate at which text is answered when many ask: how often it is asked in an open loop
TEXT_TOKENS = 2  # that such a request says: its first token is what matters


@dataclass(frozen=True, slots=True)
class Plan:
    repeats: int = 5
    sides_px: tuple[int, ...] = (224, 448, 896)
    images: tuple[int, ...] = (1, 2, 4)
    at_once: tuple[int, ...] = (1, 2, 4, 8)
    rounds: int = 3
    busy: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6)  # of the rate at which image requests are answered when many ask
    seconds: float = 15.0  # of an open loop, in two halves
    words: int = 60
    max_tokens: int = 16
    timeout_s: float = 60.0


QUICK = Plan(repeats=3, sides_px=(224, 896), images=(1, 2), at_once=(1, 4), rounds=1, busy=(0.0, 0.5), seconds=4.0)


@dataclass(frozen=True, slots=True)
class Many:
    """So many callers at once."""

    answers: tuple[Answer, ...]
    took_s: float

    @property
    def rps(self) -> float:
        return sum(not answer.failed for answer in self.answers) / self.took_s

    @property
    def tokens_per_s(self) -> float:
        return sum(answer.tokens for answer in self.answers) / self.took_s


@dataclass(frozen=True, slots=True)
class Beside:
    """Text while image requests come at a rate."""

    text: tuple[Answer, ...]
    images: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    model: str
    modalities: tuple[str, ...]
    plan: Plan
    alone: Mapping[str, tuple[Answer, ...]]  # by Question.kind
    many: Mapping[str, Mapping[int, Many]]  # "text", and the picture's kind -> callers
    text_rps: float
    beside: Mapping[float, Beside]  # by image requests a second
    failures: tuple[str, ...] = field(default=())


def known(answers: Sequence[Answer]) -> list[Answer]:
    return [answer for answer in answers if not answer.failed]


def ttft_s(answers: Sequence[Answer], share: float = 0.5) -> float:
    return median([answer.ttft_s for answer in known(answers)], share)


async def measure(
    addresses: Sequence[str], plan: Plan, seed: int, say: Callable[[str], None], door: Door | None = None
) -> Measured:
    """door: how the mesh is entered, where it is not open.

    Raises:
        LiveError: it serves nothing, or no request succeeds.
    """
    try:
        async with AsyncClient(addresses, tls=door) as client:
            model = next((each for each in await client.models() if each.servable), None)
            if model is None:
                raise LiveError("the mesh serves no model now: see headrace status")
            asker = Asker(client, Random(seed), plan.timeout_s, model.id)
            say(f"{model.id} at {addresses[0]}")
            return await _measure(asker, model.id, tuple(model.modalities), plan, say)
    except HeadraceError as error:
        raise LiveError(f"the mesh does not answer: {error}") from error


async def _measure(
    asker: Asker, model: str, modalities: tuple[str, ...], plan: Plan, say: Callable[[str], None]
) -> Measured:
    sighted = "image" in modalities
    text = Question(plan.words, max_tokens=plan.max_tokens)
    picture = Question(plan.words, (plan.sides_px[0],), plan.max_tokens)
    alone: dict[str, tuple[Answer, ...]] = {}
    for question in _alone(text, plan) if sighted else [text]:
        say(f"alone: {question.kind}")
        await asker.ask(question)  # the first of a kind pays for what is made on demand
        alone[question.kind] = tuple(await asker.one_by_one(question, plan.repeats))
    if not known(alone["text"]):
        raise LiveError(f"no request succeeds: {alone['text'][0].failed}")
    many: dict[str, dict[int, Many]] = {}
    for question in (text, picture) if sighted else (text,):
        for callers in plan.at_once:
            say(f"{callers} at once: {question.kind}")
            answers, took_s = await asker.at_once(question, callers, plan.rounds)
            many.setdefault(question.kind, {})[callers] = Many(tuple(answers), took_s)
    text_rps = TEXT_BUSY * max(each.rps for each in many["text"].values())
    short = Question(plan.words, max_tokens=TEXT_TOKENS)
    beside = await _beside(asker, short, picture, many, text_rps, plan, say) if sighted else {}
    answered = [
        *(answer for answers in alone.values() for answer in answers),
        *(answer for by in many.values() for each in by.values() for answer in each.answers),
        *(answer for each in beside.values() for answer in (*each.text, *each.images)),
    ]
    failures = tuple(sorted({answer.failed for answer in answered if answer.failed}))
    return Measured(model, modalities, plan, alone, many, text_rps, beside, failures)


def _alone(text: Question, plan: Plan) -> list[Question]:
    """Text; one image of each size; several of the smallest."""
    one = [Question(plan.words, (side,), plan.max_tokens) for side in plan.sides_px]
    more = [Question(plan.words, (plan.sides_px[0],) * count, plan.max_tokens) for count in plan.images if count > 1]
    return [text, *one, *more]


async def _beside(
    asker: Asker,
    text: Question,
    picture: Question,
    many: Mapping[str, Mapping[int, Many]],
    text_rps: float,
    plan: Plan,
    say: Callable[[str], None],
) -> dict[float, Beside]:
    """Every rate twice, forth and back, so that a machine that drifts does not favour one end."""
    found: dict[float, Beside] = {}
    most_rps = max(each.rps for each in many[picture.kind].values())
    for busy in (*plan.busy, *reversed(plan.busy)):
        image_rps, seconds = busy * most_rps, plan.seconds / 2
        say(f"{text_rps:.2g} text requests/s beside {image_rps:.2g} with an image, {seconds:g} s")
        texts, images = await asyncio.gather(
            asker.poisson(text, text_rps, seconds, ASKED_MAX),
            asker.poisson(picture, image_rps, seconds, ASKED_MAX),
        )
        before = found.get(image_rps, Beside((), ()))
        found[image_rps] = Beside((*before.text, *texts), (*before.images, *images))
    return found
