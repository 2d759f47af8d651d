"""Requests under a TAPAS week's caps: sampled stretches of the serving endpoints in the request simulator.

Stretches are the same for every variant: of the hottest hour, of the busiest, and of hours at random. In each one an
endpoint's requests come as its plan had routed work to its instances, and the instances run at the speeds that caps,
throttling and configuration left them, minute by minute. A variant that routes also tells the queue manager of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from headrace.core.cost import StepCost, StepWork
from headrace.core.governing import RISKY, Governance, Speeds
from headrace.core.slo import SloClass
from headrace.profiles import instance
from headrace.sim.governor import SpeedChange
from headrace.sim.result import Histogram, Result
from headrace.sim.run import simulate
from headrace.workload import fitted
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import Fleet, PoolSpec
from headrace.workload.multimodal import TextOnly
from headrace.workload.open import Generated
from headrace.workload.quantiles import Quantiles
from headrace.workload.scenario import Scenario
from loadtest.reproduce.tapas_load import ENDPOINTS, Case, Floats, Load, Numbers

MODEL, GPUS_EACH = "llama-2-70b", 8
BATCH = 32  # sequences at once: what the plant's capacity is of (tapas_load.ENDPOINTS)
USUAL_TOKENS = 1_366  # of a sequence: the medians of a prompt and its answer there
PROMPT_MOST, OUTPUT_MOST = 3_000, 1_000  # the model's context is 4,096
PICTURE_TOKENS = 1_601  # [I] of a request of the images' endpoint, in its sequence: a tile of Llama 3.2's tower
# A request is good with its first token within 6 x, and its tokens on average within 5 x, of what they take alone on an
# idle instance: Splitwise's limits for a 99th percentile [R].
TTFT_TIMES, TBT_TIMES = 6.0, 5.0
PATIENCE_S = 60.0  # after the stretch's end, for those that wait

LENGTHS: Mapping[str, tuple[Quantiles, Quantiles, int]] = {
    "conversation": (fitted.CONV_INPUT, fitted.CONV_OUTPUT, 0),
    "code": (fitted.CODE_INPUT, fitted.CODE_OUTPUT, 0),
    "images": (fitted.LMM_CONTEXT_TEXT, fitted.LMM_OUTPUT_IMAGE, PICTURE_TOKENS),
    "text": (fitted.LMM_CONTEXT_TEXT, fitted.LMM_OUTPUT_TEXT, 0),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How much is simulated of a run."""

    random: int  # stretches beside the hottest hour's and the busiest's
    minutes: int  # of each
    instances: int  # of each endpoint, at most; drawn once

    def stretches(self, case: Case, loads: Load) -> list[range]:
        """Minutes of the run."""
        rng = np.random.default_rng([case.seed, 29])
        by_hour = case.minutes // 60
        busy = loads.opaque.mean(axis=1) + loads.work.sum(axis=1) / loads.servings
        hours = [_highest(loads.outside_c, by_hour), _highest(busy, by_hour), *rng.integers(0, by_hour, self.random)]
        begins = [60 * int(hour) + int(rng.integers(0, 61 - self.minutes)) for hour in hours]
        return [range(begin, begin + self.minutes) for begin in begins]

    def picked(self, case: Case, loads: Load) -> list[Numbers]:
        """Instances of each endpoint."""
        rng = np.random.default_rng([case.seed, 31])
        owns = [np.flatnonzero(loads.endpoint == at) for at in range(len(ENDPOINTS))]
        return [np.sort(rng.permutation(own)[: self.instances]) for own in owns]


def _highest(values: Floats, hours: int) -> int:
    return int(np.argmax(values.reshape(hours, 60).mean(axis=1)))


@dataclass(frozen=True, slots=True)
class Moment:
    """A minute of the serving instances, [instance], and of the opaque ones together."""

    work: Floats  # that is routed there, also what it cannot do
    capacity: Floats  # beside the best configuration's at full speed, of the model that is loaded
    prefill: Floats  # clocks of the two phases, throttling included
    decode: Floats
    opaque_asked: float
    opaque_served: float


@dataclass(slots=True)
class Watch:
    """Keeps the minutes of the stretches; all others are forgotten."""

    stretches: Sequence[range]
    moments: dict[int, Moment] = field(default_factory=dict)

    def wants(self, minute: int) -> bool:
        return any(minute in stretch for stretch in self.stretches)


@cache
def _step() -> StepCost:
    return instance(f"h100/{MODEL}/tp{GPUS_EACH}").step


@cache
def seconds_of(endpoint: str) -> float:
    """Busy seconds of an instance for a request of usual length: its part of a batch at full speed."""
    step = _step()
    prompt, output = _means(endpoint)
    decoding = StepWork(0, 0, BATCH, BATCH * USUAL_TOKENS)
    mixed = StepWork(round(prompt), round(prompt * prompt / 2), BATCH, BATCH * USUAL_TOKENS)
    decode_s = step.step_s(decoding)
    return step.step_s(mixed) - decode_s + output * decode_s / BATCH


@cache
def tokens_of(endpoint: str) -> float:
    """Of a usual answer."""
    return _means(endpoint)[1]


def _means(endpoint: str) -> tuple[float, float]:
    prompts, outputs = _drawn(endpoint, np.random.default_rng(0), 20_000)
    return float(prompts.mean()), float(outputs.mean())


def _drawn(endpoint: str, rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    prompt, output, beside = LENGTHS[endpoint]
    prompts = np.minimum(prompt.counts(rng, count) + beside, PROMPT_MOST)
    return prompts, np.minimum(output.counts(rng, count), OUTPUT_MOST)


# --- one stretch of one endpoint ---


@dataclass(frozen=True, slots=True)
class Stretch:
    case: Case
    endpoint: int
    picked: Numbers  # its instances
    minutes: range
    moments: Mapping[int, Moment]
    decode_free: float
    routed: bool  # the queue manager is told of speeds, and of how much of each instance routing uses

    def run(self) -> Result:
        name = ENDPOINTS[self.endpoint].name
        return simulate(self._scenario(), "fcfs", self.case.seed, arrivals=self._arrivals(name), speeds=self._speeds())

    def _scenario(self) -> Scenario:
        pool = PoolSpec(
            "llm", ("prefill", "decode"), gpu="h100", tp=GPUS_EACH, count=len(self.picked), slots=BATCH, host_gb=0.0
        )
        return Scenario(
            name="tapas",
            about="",
            seed=self.case.seed,
            duration_s=60.0 * len(self.minutes),
            drain_s=PATIENCE_S,
            model=MODEL,
            workload=Generated(TextOnly()),
            classes=(SloClass("interactive", 1.0, 600.0, 1 << 20),),
            shares=(1.0,),
            fleet=Fleet((pool,)),
            mesh={"coupling": float(self.routed)},
        )

    def _arrivals(self, name: str) -> Iterator[Arrival]:
        """The same random numbers for every variant: a Poisson process in work, turned into time by the rate."""
        rng = np.random.default_rng([self.case.seed, 37, self.endpoint, self.minutes.start])
        rates = [float(self.moments[at].work[self.picked].sum()) / seconds_of(name) for at in self.minutes]
        until = np.concatenate([[0.0], np.cumsum(np.array(rates) * 60.0)])
        count = int(1.5 * until[-1]) + 100
        when = np.cumsum(rng.exponential(size=count))
        times = np.interp(when[when < until[-1]], until, 60.0 * np.arange(len(until)))
        prompts, outputs = _drawn(name, rng, count)
        for at_s, prompt, output in zip(times.tolist(), prompts.tolist(), outputs.tolist(), strict=False):
            yield Arrival(at_s, prompt, output, slo_class="interactive", model=MODEL, ttft_s=ttft_most_s(prompt))

    def _speeds(self) -> Iterator[SpeedChange]:
        for minute, at in enumerate(self.minutes):
            moment = self.moments[at]
            used = moment.work[self.picked] / np.maximum(moment.capacity[self.picked], 1e-9)
            weights = _weights(used) if self.routed else np.ones(len(used))
            for number, each in enumerate(self.picked.tolist()):
                said = Governance(f"llm-{number}", float(weights[number]), speeds=self._of(moment, each))
                yield SpeedChange(60.0 * minute, said)

    def _of(self, moment: Moment, each: int) -> Speeds:
        """A lighter model, or one in 8 bits, is faster than full speed."""
        capacity, decode = float(moment.capacity[each]), float(moment.decode[each])
        return Speeds(capacity * float(moment.prefill[each]), capacity * min(1.0, decode / self.decode_free), 1.0)


def _weights(used: Floats) -> Floats:
    """As much of each as routing uses; at risk, and to be spared, is only what it does not use at all."""
    share = used / max(float(used.max()), 1e-9)
    found: Floats = np.where(share > 0.02, np.maximum(share, RISKY), 0.0)
    return found


@cache
def ttft_most_s(prompt: int) -> float:
    """A short prompt has the time of one of 512 tokens: it waits for the iteration that runs."""
    tokens = max(512, prompt)
    step = _step()
    return TTFT_TIMES * step.step_s(StepWork(tokens, tokens * tokens // 2))


@cache
def tbt_most_s() -> float:
    step = _step()
    return TBT_TIMES * step.step_s(StepWork(0, 0, 1, USUAL_TOKENS))


# --- all of them ---


@dataclass(slots=True)
class Answers:
    """Of all stretches together; one array each of what percentiles are of."""

    ttft_s: list[Floats] = field(default_factory=list)
    tbt: list[Histogram] = field(default_factory=list)
    asked: int = 0
    good: int = 0

    def add(self, done: Result) -> None:
        requests = done.requests
        with np.errstate(invalid="ignore"):
            slow = requests.tbt_s > tbt_most_s()
        late = np.where(np.isnan(requests.ttft_s), np.inf, requests.ttft_s)  # not begun when patience was over
        self.ttft_s.append(late)
        self.asked += len(requests)
        self.good += int((done.met() & ~slow).sum())
        self.tbt.append(done.tbt)

    def figures(self) -> dict[str, float]:
        ttft_s = np.concatenate(self.ttft_s)
        most_s = float(np.quantile(ttft_s, 0.99, method="lower"))
        return {
            "ttft_p50_s": float(np.median(ttft_s)),
            "ttft_p99_s": min(most_s, PATIENCE_S),
            "tbt_p99_s": self._tbt_s(0.99),
            "goodput": self.good / self.asked,
            "requests": float(self.asked),
        }

    def _tbt_s(self, share: float) -> float:
        """Of all gaps between two tokens, to the width of a bin."""
        edges = np.concatenate([each.edges[1:] for each in self.tbt])
        counts = np.concatenate([each.counts for each in self.tbt])
        order = np.argsort(edges)
        below = np.cumsum(counts[order])
        return float(edges[order][np.searchsorted(below, share * below[-1])])


def latencies(case: Case, loads: Load, watch: Watch, sampling: Sampling, *, routed: bool) -> dict[str, float]:
    """Of the stretches that a run has kept; each is simulated from an empty queue."""
    answers = Answers()
    for endpoint, picked in enumerate(sampling.picked(case, loads)):
        for minutes in watch.stretches:
            stretch = Stretch(case, endpoint, picked, minutes, watch.moments, case.kind.decode_free_speed, routed)
            answers.add(stretch.run())
    kept = watch.moments.values()
    asked = sum(moment.opaque_asked for moment in kept)
    return answers.figures() | {"opaque_sampled": sum(moment.opaque_served for moment in kept) / asked}
