"""Requests made ready beforehand, and what became of each: as little work as possible while they are sent.

A refused request is not tried again here, as a client library would: what a drill offers is what it says.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from headrace.client import operator
from headrace.client.aio import AsyncClient
from headrace.client.request import Options, build
from headrace.v1 import gateway_pb2
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Generated, Scenario, ScenarioError
from loadtest.drills.target import Target
from loadtest.wording import Lexicon, calibrate

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Ready:
    """One request as it goes out: HTTP's bytes, or gRPC's message."""

    at_s: float  # since the beginning of its level
    slo_class: str
    target_s: float  # for the first token
    wire: bytes | gateway_pb2.GenerateRequest

    @property
    def via(self) -> str:
        return "http" if isinstance(self.wire, bytes) else "grpc"


@dataclass(slots=True)
class Shot:
    """What became of one; times are since the level's beginning, nan: it never came to that."""

    due_s: float
    slo_class: str
    target_s: float
    via: str
    sent_s: float = math.nan
    first_s: float = math.nan
    end_s: float = math.nan
    tokens: int = 0
    status: str = ""  # HTTP's number or gRPC's name; empty: no answer at all
    code: str = ""  # of the error, a word of headrace.core.errors; empty: a whole answer
    reason: str = ""  # x-headrace-request-dropped-reason
    retry_after_s: float = math.nan  # as a client is told
    retry_exact_s: float = math.nan  # retry-after-ms, RetryInfo
    left: bool = False  # by this client, on purpose
    tries: int = 1

    @property
    def late_s(self) -> float:
        """Of this client, not of the mesh."""
        return self.sent_s - self.due_s

    @property
    def ttft_s(self) -> float:
        """From when it was due: a client that sends late does not flatter the mesh."""
        return self.first_s - self.due_s

    @property
    def whole(self) -> bool:
        return not self.code and not math.isnan(self.end_s) and not self.left

    @property
    def good(self) -> bool:
        """Answered within its class's target."""
        return self.whole and self.ttft_s <= self.target_s

    @property
    def refused(self) -> bool:
        return self.status in ("429", "RESOURCE_EXHAUSTED")


@dataclass(frozen=True, slots=True)
class Maker:
    """Turns arrivals into requests of this mesh."""

    scenario: Scenario
    model: str
    lexicon: Lexicon
    api_key: str
    targets_s: Mapping[str, float]  # that the mesh's classes promise for the first token

    @staticmethod
    async def of(scenario: Scenario, target: Target) -> "Maker":
        """Raises HeadraceError, grpc.RpcError: the mesh does not answer; ScenarioError: it has no such class."""
        if not isinstance(scenario.workload, Generated):
            raise ScenarioError(f"{scenario.name} [workload] kind: a drill asks at rates of its own: generated")
        door, addresses = target.door, target.state.grpc_addresses
        async with AsyncClient(addresses, tls=door) as client:
            served = [model.id for model in await client.models()]
            model = scenario.model if scenario.model in served else served[0]
            lexicon = await calibrate(client, model)
        cell = await operator.cell_status(target.state.services["qm-0"], door=target.inner)
        targets_s = {told.slo_class: told.ttft_s for told in cell.classes}
        if other := [slo.name for slo in scenario.classes if slo.name not in targets_s]:
            raise ScenarioError(f"{scenario.name}: the mesh has no class {other[0]!r}; it has {', '.join(targets_s)}")
        return Maker(scenario, model, lexicon, door.api_key, targets_s)

    def ready(self, rate_rps: float, seconds: float, seed: int) -> list[Ready]:
        """An open loop's requests, in order of time."""
        assert self.scenario.drill is not None
        drawn = self.scenario.changed(duration_s=seconds, scale=rate_rps / self.rate_rps)
        rng = Random(f"{seed} {rate_rps}")
        return [self.one(arrival, rng) for arrival in drawn.arrivals(seed)]

    @property
    def rate_rps(self) -> float:
        """Of the scenario as it is written."""
        assert isinstance(self.scenario.workload, Generated), "of() has seen to it"
        return self.scenario.workload.source.rate_rps

    def one(self, arrival: Arrival, rng: Random, max_tokens: int = 0) -> Ready:
        """max_tokens: instead of the arrival's."""
        assert self.scenario.drill is not None
        text = self.lexicon.text(arrival.input_tokens, rng)
        tokens = max_tokens or arrival.output_tokens
        over_grpc = rng.random() < self.scenario.drill.grpc_share
        make = self._message if over_grpc else self._bytes
        name = arrival.slo_class
        return Ready(arrival.at_s, name, self.targets_s[name], make(text, tokens, name))

    def _message(self, text: str, max_tokens: int, slo_class: str) -> gateway_pb2.GenerateRequest:
        options = Options(model=self.model, max_tokens=max_tokens, ignore_eos=True, slo_class=slo_class)
        return build(text, [], options)

    def _bytes(self, text: str, max_tokens: int, slo_class: str) -> bytes:
        body = json.dumps(
            {
                "model": self.model,
                "messages": [{"role": "user", "content": text}],
                "max_tokens": max_tokens,
                "ignore_eos": True,
                "slo_class": slo_class,
                "stream": True,
            }
        ).encode()
        key = f"Authorization: Bearer {self.api_key}\r\n" if self.api_key else ""
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: headrace\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{key}\r\n"
        )
        return head.encode() + body
