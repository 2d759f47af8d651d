"""A scenario's requests put to a live mesh in real time: each is sent at its time, whatever became of those before.

The other end of the simulator: the same arrivals, and the same columns and figures of what became of them.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from headrace.client import Image, Message
from headrace.client.aio import AsyncClient, AsyncStream
from headrace.client.door import Door
from headrace.client.errors import Cancelled, DeadlineExceeded, HeadraceError
from headrace.core.slo import CLASSES
from headrace.workload.arrival import Arrival, Part
from headrace.workload.scenario import Scenario, ScenarioError
from loadtest.photos import draw_all, photo
from loadtest.replay_rows import Replayed, Row, replayed
from loadtest.wording import Lexicon, calibrate

IN_FLIGHT_MAX = 1_024  # streams of one client process: about a thousand fill one core at 10 tokens/s each
TELL_EVERY_S = 5.0


def _silent(text: str) -> None:
    pass


async def replay(
    scenario: Scenario,
    addresses: str | Sequence[str],
    *,
    in_flight_max: int = IN_FLIGHT_MAX,
    say: Callable[[str], None] = _silent,
    door: Door | None = None,
) -> Replayed:
    """Replays an open-loop scenario at the gateways of a running mesh, host:port each; `say` hears how it goes. door:
    how they are entered, where it is not open. Who is refused does not come back: it would be late by then, and take
    the place of one that is not.

    Ends when all requests have, or drain_s after the last one was sent.

    Raises:
        ScenarioError: the mesh cannot be asked what the scenario asks.
        HeadraceError: the mesh does not answer at all.
    """
    arrivals = list(scenario.arrivals())
    _check(scenario, arrivals)
    async with AsyncClient(addresses, tls=door) as client:
        models = await _models(client, arrivals, say)
        lexicon = await calibrate(client, next(iter(models.values()), ""))
    async with AsyncClient(addresses, tls=door, max_retries=0) as client:
        pictures = _pictures(arrivals)
        drawn = draw_all(picture for of_one in pictures for picture in of_one)
        say(f"{len(arrivals)} requests over {scenario.duration_s:g} s; {drawn} different pictures are drawn")
        run = _Run(client, scenario, models, lexicon, in_flight_max)
        telling = asyncio.create_task(_tell(run, say))
        try:
            await run.all(arrivals, pictures)
        finally:
            telling.cancel()
    return replayed(scenario, run.rows, scenario.seed, run.now_s(), run.joules, run.in_flight_seen)


def _check(scenario: Scenario, arrivals: Sequence[Arrival]) -> None:
    if unknown := [slo.name for slo in scenario.classes if slo.name not in CLASSES]:
        raise ScenarioError(f"{scenario.name}: a mesh has no class {unknown[0]!r}; it has {', '.join(CLASSES)}")
    for arrival in arrivals:
        scenario.class_index(arrival.slo_class)
        if other := [part.modality for part in arrival.parts if part.modality != "image"]:
            raise ScenarioError(f"{scenario.name}: a replay draws images; it has no {other[0]}")
        if any(not (part.width and part.height) for part in arrival.parts):
            raise ScenarioError(f"{scenario.name}: an image needs its width and height to be drawn")


async def _models(client: AsyncClient, arrivals: Sequence[Arrival], say: Callable[[str], None]) -> Mapping[str, str]:
    """By the scenario's name: the same where the mesh serves it; else what answers in its place, which is told.

    As many models as a scenario has stay as many, as far as the mesh serves so many.
    """
    served = [model.id for model in await client.models()]
    wanted = list(dict.fromkeys(arrival.model for arrival in arrivals))
    spare = [name for name in served if name not in wanted] or served
    found = {name: name if name in served or not name else spare[at % len(spare)] for at, name in enumerate(wanted)}
    for name, other in found.items():
        if name != other:
            say(f"the mesh does not serve {name}: {other} answers in its place")
    return found


def _pictures(arrivals: Sequence[Arrival]) -> list[list[tuple[int, int, int]]]:
    """The (number, width, height) of every image, by request: two are the same file where their content is."""
    numbers, known = count(), dict[str, int]()

    def number(part: Part) -> int:
        return known.setdefault(part.content, next(numbers)) if part.content else next(numbers)

    return [[(number(part), part.width, part.height) for part in arrival.parts] for arrival in arrivals]


@dataclass(slots=True)
class _Run:
    client: AsyncClient
    scenario: Scenario
    models: Mapping[str, str]
    lexicon: Lexicon
    in_flight_max: int
    rows: list[Row] = field(default_factory=list)
    in_flight: int = 0
    in_flight_seen: int = 0
    joules: float = 0.0
    began_s: float = 0.0  # monotonic
    began_epoch_s: float = 0.0

    def now_s(self) -> float:
        return time.monotonic() - self.began_s

    async def all(self, arrivals: Sequence[Arrival], pictures: Sequence[list[tuple[int, int, int]]]) -> None:
        self.began_s, self.began_epoch_s = time.monotonic(), time.time()
        room, asking = asyncio.Semaphore(self.in_flight_max), list[asyncio.Task[None]]()
        for number, (arrival, images) in enumerate(zip(arrivals, pictures, strict=True)):
            row = Row(arrival.at_s, arrival.slo_class, len(images), arrival.input_tokens, arrival.ttft_s)
            self.rows.append(row)
            content: list[str | Image] = [*(Image(photo(*image)) for image in images), self._text(number, arrival)]
            await asyncio.sleep(arrival.at_s - self.now_s())
            await room.acquire()
            task = asyncio.create_task(self._ask(row, arrival, content))
            task.add_done_callback(lambda _: room.release())
            asking.append(task)
        await self._drain(asking)

    async def _drain(self, asking: Sequence[asyncio.Task[None]]) -> None:
        if not asking:
            return
        ended, late = await asyncio.wait(asking, timeout=self.scenario.drain_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in ended:
            task.result()  # a bug of ours, not an answer that failed

    def _text(self, number: int, arrival: Arrival) -> str:
        return self.lexicon.text(arrival.input_tokens, Random(f"{self.scenario.seed}/{number}"))

    async def _ask(self, row: Row, arrival: Arrival, content: list[str | Image]) -> None:
        slo = self.scenario.classes[self.scenario.class_index(row.slo_class)]
        row.sent_s = self.now_s()
        self.in_flight += 1
        self.in_flight_seen = max(self.in_flight_seen, self.in_flight)
        stream = self.client.generate(
            [Message("user", content)],
            model=self.models[arrival.model],
            max_tokens=arrival.output_tokens,
            ignore_eos=True,
            slo_class=row.slo_class,
            ttft_target_s=arrival.ttft_s,
            tbt_target_s=arrival.tbt_s,
            priority=arrival.priority,
            flow=arrival.flow or arrival.tenant,
            timeout_s=0.0 if slo == CLASSES[slo.name] else slo.timeout_s,
        )
        try:
            await self._read(row, stream)
        finally:
            self.in_flight -= 1
            if stream.end is None:
                await stream.close()

    async def _read(self, row: Row, stream: AsyncStream) -> None:
        try:
            async for delta in stream:
                row.take(self.now_s(), len(delta.tokens))
        except HeadraceError as error:
            row.close(self.now_s(), _reason(error), error.code, error.message)
        else:
            assert stream.end is not None
            row.close(self.now_s(), stream.end.reason)
        if stream.end is not None:
            row.told(stream.usage, stream.timeline, self.began_epoch_s)
            self.joules += stream.usage.joules


def _reason(error: HeadraceError) -> str:
    return {DeadlineExceeded: "deadline", Cancelled: "cancelled"}.get(type(error), "error")


async def _tell(run: _Run, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        done = sum(bool(row.reason) for row in run.rows)
        tokens = sum(row.output_tokens for row in run.rows)
        say(f"{len(run.rows)} sent, {done} ended, {run.in_flight} in flight, {tokens} tokens")
