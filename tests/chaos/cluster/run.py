"""Faults of a cluster's containers under load: `make chaos-cluster`. Skipped, and said so, without a Docker engine.

Every request that was accepted must end once, its tokens those of the same question asked again undisturbed; one that
was not is refused with a typed error. Afterwards nothing may be held. "back" is from the fault to the first answer to a
question with a picture that was asked after it.
"""

import argparse
import asyncio
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from headrace.v1 import gateway_pb2 as pb
from tests.chaos.cluster.containers import Containers, DockerFailed
from tests.chaos.faults import again, question
from tests.e2e.asking import Answer, ask, follow, picture, request

CLIENTS = 6
SETTLED_S, DEAD_S, HELD_S, AFTER_S = 3.0, 6.0, 15.0, 3.0
ANSWER_WITHIN_S, BACK_WITHIN_S, PROBE_S = 150.0, 120.0, 5.0
# Of a request that may have reached the journal or not, when its server died, the pictures go after a minute.
FREE_WITHIN_S = 80.0
ALL = ("mesh", "state")


@dataclass(frozen=True, slots=True)
class Fault:
    action: str  # kill, pause, cut
    victim: str  # a role, found when the fault is due
    networks: tuple[str, ...] = ()  # it is cut from

    @property
    def name(self) -> str:
        return f"{self.action} {self.victim}" + (f" from {'+'.join(self.networks)}" if self.networks else "")


FAULTS = (
    *(Fault("kill", victim) for victim in ("queue manager", "stream leader", "stream follower", "redis master")),
    *(Fault("kill", victim) for victim in ("sentinel", "encoder", "prefill", "decode", "gateway")),
    *(Fault("pause", victim) for victim in ("queue manager", "stream leader", "redis master", "decode")),
    Fault("cut", "queue manager", ALL),
    Fault("cut", "queue manager", ("mesh",)),
    Fault("cut", "stream leader", ("mesh", "bus")),
    Fault("cut", "stream leader", ("bus",)),  # alone with its clients
    Fault("cut", "redis master", ("state",)),
    Fault("cut", "prefill", ALL),
    Fault("cut", "decode", ALL),
)


@dataclass(slots=True)
class Verdict:
    fault: Fault
    seed: int
    container: str = ""
    accepted: int = 0
    answered: int = 0
    refused: int = 0
    broken: int = 0
    back_s: float = -1.0
    longest_pause_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems and self.accepted == self.answered > 0 and self.back_s >= 0

    def row(self) -> str:
        cells = (self.fault.action, self.fault.victim, "+".join(self.fault.networks), self.seed, self.accepted)
        counts = (self.answered, self.accepted - self.answered, self.refused, len(self.problems), self.broken)
        times = (f"{self.back_s:.1f}", f"{self.longest_pause_s:.1f}")
        return "| " + " | ".join(str(cell) for cell in (*cells, *counts, *times)) + " |"


async def victim_of(fault: Fault, containers: Containers, told: dict[str, Any], rng: random.Random) -> str:
    leader = told["streams"]["REQUESTS"]["leader"]
    others = [name for name in ("nats-1", "nats-2", "nats-3") if name != leader]
    services = {
        "queue manager": told["queue_manager"],
        "stream leader": leader,
        "stream follower": rng.choice(others),
        "redis master": "redis-" + told["redis"][-1],  # the last digit of its address
        "sentinel": f"sentinel-{rng.randint(1, 3)}",
        "gateway": f"gateway-{rng.randint(1, 2)}",
    }
    return rng.choice(await containers.of_service(services.get(fault.victim, fault.victim)))


class Trial:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._undisturbed: dict[bytes, list[int]] = {}

    async def inject(self, fault: Fault, seed: int) -> Verdict:
        rng, verdict = random.Random(f"{seed} {fault.name}"), Verdict(fault, seed)
        told = await self._containers.until_whole()
        verdict.container = await victim_of(fault, self._containers, told, rng)
        done, over, numbers = list[tuple[pb.GenerateRequest, Answer]](), asyncio.Event(), itertools.count()
        clients = [asyncio.create_task(self._ask_on(rng, numbers, over, done)) for _ in range(CLIENTS)]
        await asyncio.sleep(SETTLED_S)
        try:
            await self._strike(verdict)
            await self._containers.until_whole()
            await asyncio.sleep(AFTER_S)
        finally:
            over.set()
            await asyncio.gather(*clients)
        await self._judge(verdict, done)
        return verdict

    async def _ask_on(
        self,
        rng: random.Random,
        numbers: "itertools.count[int]",
        over: asyncio.Event,
        done: list[tuple[pb.GenerateRequest, Answer]],
    ) -> None:
        while not over.is_set():
            number = next(numbers)
            message = question(rng, 0, number)
            done.append((message, await follow(self._containers.gateways, message, ANSWER_WITHIN_S, first=number)))

    async def _strike(self, verdict: Verdict) -> None:
        """The fault, how long it takes until somebody is answered, and the healing."""
        containers, name = self._containers, verdict.container
        links = await containers.links(name, verdict.fault.networks)
        began_s = time.monotonic()
        match verdict.fault.action:
            case "kill":
                await containers.docker("kill", name)
            case "pause":
                await containers.docker("pause", name)
            case "cut":
                await containers.cut(name, links)
        back = asyncio.create_task(self._until_back(began_s))
        await asyncio.sleep(DEAD_S if verdict.fault.action == "kill" else HELD_S)
        match verdict.fault.action:
            case "kill":
                await containers.docker("start", name)
            case "pause":
                await containers.docker("unpause", name)
            case "cut":
                await containers.join(name, links)
        verdict.back_s = await back

    async def _until_back(self, began_s: float) -> float:
        """-1: nobody was answered."""
        for number in itertools.count():
            if time.monotonic() - began_s > BACK_WITHIN_S:
                return -1.0
            address = self._containers.gateways[number % 2]
            probe = request(f"probe {began_s} {number}", max_tokens=2, images=[picture(number)])
            try:
                async with asyncio.timeout(PROBE_S):
                    await ask(address, probe)
            except (grpc.aio.AioRpcError, TimeoutError):
                await asyncio.sleep(0.1)
            else:
                break
        return time.monotonic() - began_s

    async def _judge(self, verdict: Verdict, done: list[tuple[pb.GenerateRequest, Answer]]) -> None:
        for _, answer in done:
            verdict.broken += answer.breaks
            verdict.longest_pause_s = max(verdict.longest_pause_s, answer.longest_pause_s)
            if not answer.request_id:
                verdict.refused += 1
                verdict.problems += [] if answer.faults else [f"neither accepted nor refused: {answer}"]
                continue
            verdict.accepted += 1
            verdict.answered += answer.reason == "length"
            verdict.problems += [f"{answer.request_id}: {fault}" for fault in answer.faults]
            if answer.end is not None and answer.reason != "length":
                verdict.problems.append(f"{answer.request_id}: ended as {answer.reason}: {answer.end}")
        verdict.problems += await self._differences(done)
        if left := await self._left():
            verdict.problems.append(f"still held: {left}")

    async def _differences(self, done: list[tuple[pb.GenerateRequest, Answer]]) -> list[str]:
        at_once = asyncio.Semaphore(CLIENTS)

        async def differs(message: pb.GenerateRequest, answer: Answer) -> str:
            async with at_once:
                undisturbed = await ask(self._containers.gateways[0], again(message))
            same = answer.tokens == undisturbed.tokens and len(answer.tokens) == message.sampling.max_tokens
            return "" if same else f"{answer.request_id}: other tokens than an undisturbed run"

        ended = [(message, answer) for message, answer in done if answer.reason == "length"]
        return [why for why in await asyncio.gather(*(differs(*one) for one in ended)) if why]

    async def _left(self) -> dict[str, int]:
        until = time.monotonic() + FREE_WITHIN_S
        while True:
            held: dict[str, int] = (await self._containers.look())["held"] | await self._containers.files()
            if not held or time.monotonic() > until:
                return held


HEAD = (
    "| fault | container | networks | seed | accepted | answered | lost | refused | problems | broken streams | "
    "back s | longest pause s |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


async def run(args: argparse.Namespace, containers: Containers) -> list[Verdict]:
    containers.prepare()
    if not args.running:
        await containers.up()
    print(HEAD, flush=True)
    trial, verdicts = Trial(containers), []
    for seed in args.seeds:
        for fault in FAULTS:
            if args.only in fault.name:
                verdict = await trial.inject(fault, seed)
                verdicts.append(verdict)
                print(verdict.row(), *verdict.problems[:5], sep="\n      ", flush=True)
    return verdicts


async def main(args: argparse.Namespace) -> int:
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        containers = Containers(args.project, Path(args.secrets or scratch))
        try:
            verdicts = await run(args, containers)
        except DockerFailed as error:
            print(f"chaos-cluster: {error}", file=sys.stderr)
            return 1
        finally:
            await (containers.leave() if args.running else containers.down())
    bad = [verdict.fault.name for verdict in verdicts if not verdict.good]
    print(f"{len(verdicts) - len(bad)} of {len(verdicts)} faults survived in {time.monotonic() - began_s:.0f} s")
    if args.json:
        print(json.dumps({"faults": len(verdicts), "bad": bad}))
    return 1 if bad or not verdicts else 0


def has_docker() -> bool:
    command = shutil.which("docker")
    return command is not None and not subprocess.run([command, "info"], capture_output=True, check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.chaos.cluster.run", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--project", default="headrace-chaos")
    parser.add_argument("--running", action="store_true", help="the project is up, and stays so")
    parser.add_argument("--secrets", default="", help="of a project that is up")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if not has_docker():
        print("chaos-cluster: skipped, no Docker engine answers (set DOCKER_HOST, or start one)")
        sys.exit(0)
    sys.exit(asyncio.run(main(chosen)))
