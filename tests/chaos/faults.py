"""One fault under load, and what became of every request that was running.

A request is good when it ended exactly once, its stream had neither gap nor duplicate, and its tokens are those of
an undisturbed run. A fault counts only if the process's own log says that it landed.
"""

import asyncio
import hashlib
import itertools
import json
import random
import signal
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import psutil
import redis.asyncio

from headrace.cli.supervisor import Mesh
from headrace.v1 import gateway_pb2 as pb
from tests.e2e.asking import Answer, ask, follow, picture, request
from tests.e2e.leaks import left_after

CONCURRENT = 12
STOPPED_S = 10.0
# A worker's lease is 2 s, a restart takes about as long; a request that moved several times fits well inside.
ANSWER_WITHIN_S = 60.0
LAND_WITHIN_S = 20.0
FREE_WITHIN_S = 12.0  # what a stopped worker wrote late is swept within two rounds of three seconds
IMAGES = (0, 0, 1, 2)  # a request's images, by turns

Asked = tuple[pb.GenerateRequest, Answer]


@dataclass(frozen=True, slots=True)
class Load:
    """What clients ask, all the time, while the fault strikes."""

    clients: int
    question: Callable[[random.Random, int, int], pb.GenerateRequest]  # of a client, the number-th of all
    undisturbed: Callable[[pb.GenerateRequest], pb.GenerateRequest]  # asked to compare: its answer begins alike
    answer_within_s: float = ANSWER_WITHIN_S
    land_within_s: float = LAND_WITHIN_S
    settled_s: float = 0.3  # until all of it is under way; only then what waits for no transition strikes


@dataclass(frozen=True, slots=True)
class Fault:
    process: str
    action: str  # kill, stop, restart, flushall
    transition: str = ""  # empty: at no particular moment
    crossing: int = 1

    @property
    def name(self) -> str:
        return f"{self.process} {self.action} {self.transition}".strip()


@dataclass(slots=True)
class Verdict:
    fault: Fault
    landed: bool = False
    requests: int = 0
    ended_once: int = 0
    broken: int = 0
    longest_pause_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.landed and not self.problems and self.ended_once == self.requests

    def check(self) -> None:
        """For tests."""
        fault = self.fault
        assert self.landed, f"the log of {fault.process} does not say that it {fault.action}ed at {fault.transition}"
        assert self.requests > 0
        assert self.good, self.line()

    def row(self) -> str:
        fault = self.fault
        cells = (fault.process, fault.action, fault.transition or "any", "yes" if self.landed else "NO", self.requests)
        rest = (self.ended_once, len(self.problems), self.broken, f"{self.longest_pause_s:.1f}")
        return "| " + " | ".join(str(cell) for cell in (*cells, *rest)) + " |"

    def line(self) -> str:
        state = "ok " if self.good else "BAD"
        landed = "" if self.landed else ", did not land"
        counts = f"{self.ended_once}/{self.requests} ended, {self.broken} broken streams"
        return f"{state} {self.fault.name}{landed}: {counts}, longest pause {self.longest_pause_s:.1f} s" + "".join(
            f"\n      {problem}" for problem in self.problems[:5]
        )


def question(rng: random.Random, _client: int, number: int) -> pb.GenerateRequest:
    images = [picture(rng.randrange(1000)) for _ in range(IMAGES[number % len(IMAGES)])]
    text = f"question {number} {rng.random()}"
    return request(text, max_tokens=rng.randint(15, 60), images=images, key=uuid.uuid4().hex, keep=True)


def again(message: pb.GenerateRequest) -> pb.GenerateRequest:
    plain = pb.GenerateRequest()
    plain.CopyFrom(message)
    plain.idempotency_key = ""
    return plain


STAGES = Load(CONCURRENT, question, again)


class Trial:
    """Faults against one mesh under one load. The profile engine's tokens depend on the input alone: what a question's
    undisturbed answer is has to be asked once."""

    def __init__(self, mesh: Mesh, load: Load) -> None:
        self.mesh = mesh
        self.load = load
        self._undisturbed: dict[bytes, list[int]] = {}

    async def inject(self, fault: Fault, seed: int) -> Verdict:
        """Load, the fault, recovery, and the comparison with an undisturbed run."""
        mesh, verdict, rng = self.mesh, Verdict(fault), random.Random(seed)
        strike = await _aim(mesh, fault, self.load.land_within_s)
        processes = {service: mesh.pid(service) for service in mesh.ids if service != fault.process}
        done: list[Asked] = []
        over, numbers = asyncio.Event(), itertools.count()
        clients = [
            asyncio.create_task(self._ask_on(client, rng, numbers, over, done)) for client in range(self.load.clients)
        ]
        if not fault.transition:
            await asyncio.sleep(self.load.settled_s)
        verdict.landed = await strike()
        processes.update({service: mesh.pid(service) for service in mesh.ids if service == fault.process})
        await asyncio.sleep(1.0)  # a second of load on the recovered mesh
        over.set()
        await asyncio.gather(*clients)
        verdict.problems += [f"{service} died too" for service, pid in processes.items() if mesh.pid(service) != pid]
        await mesh.until_servable()
        await self._judge(verdict, done)
        return verdict

    async def _ask_on(
        self, client: int, rng: random.Random, numbers: "itertools.count[int]", over: asyncio.Event, done: list[Asked]
    ) -> None:
        grpc = self.mesh.addresses.grpc
        addresses = [grpc["gateway-0"], grpc["gateway-1"]]
        while not over.is_set():
            number = next(numbers)
            message = self.load.question(rng, client, number)
            done.append((message, await follow(addresses, message, self.load.answer_within_s, first=number)))

    async def _judge(self, verdict: Verdict, done: list[Asked]) -> None:
        verdict.requests = len(done)
        for _message, answer in done:
            verdict.broken += answer.breaks
            verdict.longest_pause_s = max(verdict.longest_pause_s, answer.longest_pause_s)
            problems = list(answer.faults)
            if answer.reason != "length":
                problems.append(f"ended as {answer.reason!r}: {answer.end}")
            verdict.ended_once += answer.end is not None
            verdict.problems += [f"{answer.request_id}: {problem}" for problem in problems]
        verdict.problems += await self._differences(done)
        if left := await left_after(self.mesh, FREE_WITHIN_S):
            verdict.problems.append(f"still held: {left}")

    async def _differences(self, done: list[Asked]) -> list[str]:
        """The same questions again, with nothing going wrong."""
        plain = [self.load.undisturbed(message) for message, _ in done]
        await self._ask_undisturbed({_digest(message): message for message in plain})
        return [
            f"{answer.request_id}: other tokens than an undisturbed run"
            for again, (message, answer) in zip(plain, done, strict=True)
            if answer.tokens != self._undisturbed[_digest(again)][: message.sampling.max_tokens]
        ]

    async def _ask_undisturbed(self, questions: dict[bytes, pb.GenerateRequest]) -> None:
        """One model after the other, so that none is changed meanwhile."""
        at_once = asyncio.Semaphore(self.load.clients)

        async def ask_one(digest: bytes, message: pb.GenerateRequest) -> None:
            async with at_once:
                answer = await ask(self.mesh.grpc_addr, message)
            assert len(answer.tokens) == message.sampling.max_tokens, f"undisturbed, and ended as {answer.end}"
            self._undisturbed[digest] = answer.tokens

        new = {digest: message for digest, message in questions.items() if digest not in self._undisturbed}
        for model in sorted({message.model for message in new.values()}):
            of_model = [(digest, message) for digest, message in new.items() if message.model == model]
            await asyncio.gather(*(ask_one(digest, message) for digest, message in of_model))


def _digest(message: pb.GenerateRequest) -> bytes:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()


async def _aim(mesh: Mesh, fault: Fault, within_s: float) -> Callable[[], Awaitable[bool]]:
    """Gets ready to strike; the returned call tells whether the fault is known to have landed, and the process is up
    again then."""
    if fault.transition:
        seen = _crossings(mesh, fault)
        await mesh.restart(fault.process, {"HEADRACE_FAULT": f"{fault.transition}:{fault.crossing}:{fault.action}"})
        await mesh.until_servable()
        return partial(_landed, mesh, fault, seen, mesh.pid(fault.process), within_s)
    return partial(_flush_all if fault.action == "flushall" else _restart, mesh, fault)


async def _flush_all(mesh: Mesh, _fault: Fault) -> bool:
    client = redis.asyncio.Redis.from_url(mesh.addresses.redis_url)
    landed = bool(await client.flushall())
    await client.aclose()
    return landed


async def _restart(mesh: Mesh, fault: Fault) -> bool:
    restart = mesh.restart_nats if fault.process == "nats-server" else mesh.restart_redis
    restart(kill=fault.action == "kill")
    return True


def _crossings(mesh: Mesh, fault: Fault) -> int:
    """How often the process's log says that this fault hit it there."""
    lines = (line for line in mesh.logs(fault.process).splitlines() if line.startswith('{"event": "fault"'))
    logged = [json.loads(line) for line in lines]
    return sum((line["transition"], line["action"]) == (fault.transition, fault.action) for line in logged)


async def _landed(mesh: Mesh, fault: Fault, seen: int, pid: int, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while _crossings(mesh, fault) == seen:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.05)
    if fault.action == "stop":
        await asyncio.sleep(STOPPED_S)
        stopped = bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        mesh.kill(fault.process, signal.SIGCONT)
        return stopped
    while mesh.pid(fault.process) == pid:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.05)
    await mesh.until_ready(fault.process)
    return True
