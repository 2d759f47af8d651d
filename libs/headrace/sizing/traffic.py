"""What a scenario asks of one model: a sample of its requests, and how much comes in the busiest five minutes of each
stage, which need not be the same ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from headrace.characterize.cost import Input
from headrace.profiles import ModelCard
from headrace.workload import shape
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario, ScenarioError, Users

READ_MAX = 200_000  # arrivals: a day of a busy mesh
SAMPLE = 400  # requests whose stages are computed: their 99th percentile is that of four
EPOCH_S = 300.0  # ModServe's


@dataclass(frozen=True, slots=True)
class Ask:
    one: Input
    output_tokens: int
    images: tuple[tuple[int, int], ...] = ()  # tiles and pixels of each


WORK: Mapping[str, Callable[[Ask], float]] = {
    "images": lambda ask: float(len(ask.images)),
    "positions": lambda ask: float(ask.one.positions),
    "outputs": lambda ask: float(ask.output_tokens),
}


@dataclass(frozen=True, slots=True)
class Promise:
    """Of the scenario's strictest class."""

    ttft_s: float
    tbt_s: float  # 0: nothing is promised


@dataclass(frozen=True)
class Traffic:
    asks: Sequence[Ask]
    rate_rps: float  # of requests, on average
    # Requests a second that would be as much work as comes in the stage's busiest five minutes: images, prompt
    # positions, answered tokens.
    peaks: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def images_each(self) -> float:
        return self._mean(lambda ask: len(ask.images))

    @cached_property
    def with_images(self) -> float:
        """Share of the requests."""
        return self._mean(lambda ask: bool(ask.images))

    @cached_property
    def output_tokens(self) -> float:
        return self._mean(lambda ask: ask.output_tokens)

    @cached_property
    def positions(self) -> float:
        """Prompt tokens in the sequence: an LLM's load, ModServe's unit for each contract."""
        return self._mean(lambda ask: ask.one.positions)

    @cached_property
    def rows(self) -> float:
        """Of media that stand beside the sequence."""
        return self._mean(lambda ask: ask.one.rows)

    def _mean(self, of: Callable[[Ask], float]) -> float:
        return sum(map(of, self.asks)) / len(self.asks)

    @property
    def words(self) -> str:
        return (
            f"{self.rate_rps:.2f} requests/s ({max(self.peaks.values(), default=self.rate_rps):.2f} at the busiest),"
            f" {100 * self.with_images:.0f} % with images"
            f" ({self.images_each / max(self.with_images, 1e-9):.1f} each), {self.positions:.0f} prompt positions,"
            f" {self.output_tokens:.0f} tokens answered, on average"
        )


def traffic_of(scenario: Scenario, card: ModelCard, rate_rps: float = 0.0, seed: int | None = None) -> Traffic:
    """rate_rps: on average, instead of the scenario's own.

    Raises:
        ScenarioError: users in a closed loop, no arrivals, several models, or media that are no images.
    """
    if isinstance(scenario.workload, Users):
        raise ScenarioError(f"{scenario.name} [workload]: users ask when they are answered; pools need a rate")
    arrivals = list(islice(scenario.arrivals(seed), READ_MAX))
    if not arrivals:
        raise ScenarioError(f"{scenario.name}: nobody asks anything within duration_s")
    if others := {arrival.model for arrival in arrivals} - {card.name}:
        raise ScenarioError(
            f"{scenario.name}: pools are sized for one model, here come {', '.join(sorted(others))} too"
        )
    asks = [_ask(arrival, card, scenario.name) for arrival in arrivals]
    span_s = max(scenario.duration_s if len(arrivals) < READ_MAX else arrivals[-1].at_s, 1.0)
    own_rps = len(arrivals) / span_s
    factor = rate_rps / own_rps if rate_rps else 1.0
    works = {name: [of(ask) for ask in asks] for name, of in WORK.items()}
    at_s = [arrival.at_s for arrival in arrivals]
    peaks = {name: factor * own_rps * over_mean(at_s, work, span_s) for name, work in works.items() if any(work)}
    return Traffic(asks[:: max(1, len(asks) // SAMPLE)], factor * own_rps, peaks)


def over_mean(at_s: Sequence[float], work: Sequence[float], span_s: float) -> float:
    """How many times the mean the busiest five minutes are."""
    return max(sums(at_s, work, span_s, EPOCH_S)) * max(1, math.floor(span_s / min(EPOCH_S, span_s))) / sum(work)


def sums(at_s: Sequence[float], work: Sequence[float], span_s: float, each_s: float) -> list[float]:
    """In whole intervals of each_s; what is left over at the end belongs to the last."""
    count = max(1, math.floor(span_s / each_s))
    found = [0.0] * count
    for when_s, amount in zip(at_s, work, strict=True):
        found[min(count - 1, int(when_s / each_s))] += amount
    return found


def busiest(scenario: Scenario, card: ModelCard, seconds: float, rate_rps: float = 0.0) -> list[list[Arrival]]:
    """For each stage the stretch of arrivals with most of its work; stages may share one."""
    chosen = scenario
    if rate_rps:
        own = traffic_of(scenario, card)
        chosen = scenario.changed(scale=rate_rps / own.rate_rps)
    arrivals = list(islice(chosen.arrivals(), READ_MAX))
    at_s, span_s = [arrival.at_s for arrival in arrivals], max(chosen.duration_s, 1.0)
    starts = set()
    for of in WORK.values():
        work = [of(_ask(arrival, card, scenario.name)) for arrival in arrivals]
        if any(work):
            found = sums(at_s, work, span_s, seconds)
            starts.add(seconds * found.index(max(found)))
    return [list(shape.window(iter(arrivals), start_s, start_s + seconds)) for start_s in sorted(starts)]


def promise_of(scenario: Scenario) -> Promise:
    tbts = [slo.tbt_s for slo in scenario.classes if slo.tbt_s]
    return Promise(min(slo.ttft_s for slo in scenario.classes), min(tbts, default=0.0))


def _ask(arrival: Arrival, card: ModelCard, name: str) -> Ask:
    if any(part.modality != "image" for part in arrival.parts):
        raise ScenarioError(f"{name}: pools are sized for text and images; there is other media in it")
    if arrival.parts and card.tiling is None:
        raise ScenarioError(f"{name}: there are images in it, and {card.name} takes text alone")
    images, tokens = [], 0
    for part in arrival.parts:
        assert card.tiling is not None
        width, height = part.width or card.tiling.tile_px, part.height or card.tiling.tile_px
        tokens += part.tokens or card.media_tokens(width, height)
        images.append((card.tiles(width, height), width * height))
    one = Input(arrival.input_tokens, tokens, len(images), card.contract == "cross")
    return Ask(one, arrival.output_tokens, tuple(images))
