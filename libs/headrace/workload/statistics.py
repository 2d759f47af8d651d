"""What traffic is like: one streaming pass over Arrivals, then plain dataclasses that can be printed and plotted.

Counts are exact: memory grows with the number of different values and seconds, not of requests.
"""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from headrace.workload.arrival import Arrival
from headrace.workload.quantiles import Ints
from headrace.workload.rates import Floats

QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 0.999)
WINDOWS_S = (1, 10, 60, 600)
LAGS_MIN = (1, 10, 60, 1440)
TAIL_SHARE = 0.01  # of the values are the tail; fewer than TAIL_LEAST say nothing
TAIL_LEAST = 20


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a whole-number quantity."""

    count: int
    mean: float
    least: int
    greatest: int
    quantiles: dict[float, int]
    tail_index: float  # Hill's; 0 where there are too few values: see hill()

    def at(self, p: float) -> int:
        return self.quantiles[p]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Arrivals of one kind; what needs two requests or two windows is 0 or absent without."""

    requests: int
    rate_rps: float
    gap_cv: float  # of the times between arrivals; 1: Poisson
    dispersion: dict[int, float]  # window in s -> variance / mean of its counts; 1: Poisson
    peak_per_min: int
    peak_to_mean: float  # of minutes
    autocorrelation: dict[int, float]  # lag in min -> correlation of the minutes' counts
    hourly: tuple[int, ...]  # requests of each hour since the first arrival


@dataclass(frozen=True, slots=True)
class Reuse:
    """Prefix blocks that an endless cache would have held: leading blocks of a prompt that came before."""

    blocks: int
    reused: int

    @property
    def share(self) -> float:
        return self.reused / self.blocks if self.blocks else 0.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Tables are by kind of request: "all", and "text", "image", ... by its media ("mixed" for several kinds).

    Media tables are by modality of the part.
    """

    requests: int
    duration_s: float  # from the first arrival to the last
    traffic: dict[str, Traffic]
    shares: dict[str, float]
    input_tokens: dict[str, Spread]
    output_tokens: dict[str, Spread]
    parts: dict[str, Spread]  # of one modality in a request that has some
    part_counts: dict[str, Counter[int]]
    parts_per_min: dict[str, Floats]
    media_tokens: dict[str, Spread]  # of parts whose tokens are told
    widths: dict[str, Spread]
    heights: dict[str, Spread]
    seconds: dict[str, Spread]  # durations of audio and video, rounded
    hourly_image_share: tuple[float, ...]  # of whole hours with requests
    modality_correlation: float  # of text and image requests by minute; 0 without either
    reuse: Reuse

    def part_share(self, modality: str, count: int) -> float:
        """Of the requests with such parts, those that have so many."""
        return self.part_counts[modality][count] / self.parts[modality].count


def describe(arrivals: Iterable[Arrival]) -> Statistics:
    """Of traffic in order of time."""
    seen = _Seen()
    for arrival in arrivals:
        seen.add(arrival)
    return seen.statistics()


def kind(arrival: Arrival) -> str:
    if not arrival.parts:
        return "text"
    first = arrival.parts[0].modality
    return first if all(part.modality == first for part in arrival.parts) else "mixed"


class _Times:
    """Counts by second and the moments of the gaps."""

    __slots__ = ("bins", "count", "gap_mean", "gap_square", "last_s", "origin_s")

    def __init__(self, origin_s: float) -> None:
        self.origin_s = origin_s
        self.bins = array("L")
        self.count = 0
        self.last_s = math.nan
        self.gap_mean = self.gap_square = 0.0

    def add(self, at_s: float) -> None:
        """Moments by Welford's recurrence (Technometrics 4(3), 1962)."""
        if self.count:
            gap = at_s - self.last_s
            assert gap >= 0, "traffic in order of time"
            delta = gap - self.gap_mean
            self.gap_mean += delta / self.count
            self.gap_square += delta * (gap - self.gap_mean)
        self.last_s = at_s
        self.count += 1
        bump(self.bins, int(at_s - self.origin_s), 1)

    def traffic(self, duration_s: float) -> Traffic:
        minutes = sums(self.bins, 60)
        gaps = self.count - 1
        variance = self.gap_square / gaps if gaps > 0 else 0.0
        mean = self.count / (duration_s / 60) if duration_s else 0.0
        peak = int(minutes.max()) if len(minutes) else 0
        return Traffic(
            requests=self.count,
            rate_rps=self.count / duration_s if duration_s else 0.0,
            gap_cv=math.sqrt(variance) / self.gap_mean if self.gap_mean else 0.0,
            dispersion=dispersion(self.bins, duration_s),
            peak_per_min=peak,
            peak_to_mean=peak / mean if mean else 0.0,
            autocorrelation=autocorrelation(minutes),
            hourly=tuple(int(n) for n in sums(self.bins, 3600)),
        )


class _Seen:
    def __init__(self) -> None:
        self.times: dict[str, _Times] = {}
        self.origin_s = self.last_s = 0.0
        self.tables: dict[str, dict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
        self.part_minutes: dict[str, array[int]] = defaultdict(lambda: array("L"))
        self.blocks: set[int] = set()
        self.block_count = self.block_reused = 0

    def add(self, a: Arrival) -> None:
        if not self.times:
            self.origin_s = a.at_s
        self.last_s = a.at_s
        own = kind(a)
        for name in ("all", own):
            if name not in self.times:
                self.times[name] = _Times(self.origin_s)
            self.times[name].add(a.at_s)
            self.tables["input"][name][a.input_tokens] += 1
            self.tables["output"][name][a.output_tokens] += 1
        if a.parts:
            self._add_parts(a)
        if a.blocks:
            self._add_blocks(a.blocks)

    def _add_parts(self, a: Arrival) -> None:
        tables = self.tables
        for part in a.parts:
            modality = part.modality
            tables["width"][modality][part.width] += 1
            tables["height"][modality][part.height] += 1
            if part.tokens:
                tables["media"][modality][part.tokens] += 1
            if part.duration_s:
                tables["seconds"][modality][round(part.duration_s)] += 1
        for modality, n in Counter(part.modality for part in a.parts).items():
            tables["parts"][modality][n] += 1
            bump(self.part_minutes[modality], int((a.at_s - self.origin_s) / 60), n)

    def _add_blocks(self, blocks: tuple[int, ...]) -> None:
        fresh = next((i for i, block in enumerate(blocks) if block not in self.blocks), len(blocks))
        self.block_count += len(blocks)
        self.block_reused += fresh
        self.blocks.update(blocks[fresh:])

    def statistics(self) -> Statistics:
        duration_s = self.last_s - self.origin_s
        total = self.times["all"].count if self.times else 0
        spreads = {name: {key: spread(values) for key, values in table.items()} for name, table in self.tables.items()}
        pixels = {
            name: {key: value for key, value in spreads.get(name, {}).items() if value.greatest}
            for name in ("width", "height")
        }
        return Statistics(
            requests=total,
            duration_s=duration_s,
            traffic={name: times.traffic(duration_s) for name, times in self.times.items()},
            shares={name: times.count / total for name, times in self.times.items() if name != "all"},
            input_tokens=spreads.get("input", {}),
            output_tokens=spreads.get("output", {}),
            parts=spreads.get("parts", {}),
            parts_per_min={name: np.array(bins, dtype=np.float64) for name, bins in self.part_minutes.items()},
            media_tokens=spreads.get("media", {}),
            widths=pixels["width"],
            heights=pixels["height"],
            seconds=spreads.get("seconds", {}),
            hourly_image_share=self._hourly_share("image", duration_s),
            modality_correlation=self._correlation("text", "image"),
            reuse=Reuse(self.block_count, self.block_reused),
            part_counts=dict(self.tables["parts"]),
        )

    def _hourly_share(self, name: str, duration_s: float) -> tuple[float, ...]:
        if name not in self.times:
            return ()
        every, own = sums(self.times["all"].bins, 3600), sums(self.times[name].bins, 3600)
        own = np.pad(own, (0, len(every) - len(own)))
        whole = max(int(duration_s // 3600), 1)
        return tuple(float(b / a) for a, b in zip(every[:whole], own[:whole], strict=True) if a)

    def _correlation(self, one: str, other: str) -> float:
        if one not in self.times or other not in self.times:
            return 0.0
        a, b = sums(self.times[one].bins, 60), sums(self.times[other].bins, 60)
        n = max(len(a), len(b))
        a, b = np.pad(a, (0, n - len(a))), np.pad(b, (0, n - len(b)))
        return float(np.corrcoef(a, b)[0, 1]) if n > 1 and a.std() and b.std() else 0.0


def bump(bins: "array[int]", i: int, by: int) -> None:
    if i >= len(bins):
        bins.extend([0] * (i + 1 - len(bins)))
    bins[i] += by


def sums(bins: "array[int]", width: int) -> Floats:
    """Of each `width` bins, the last sum over what is left."""
    counts = np.array(bins, dtype=np.float64)
    return np.asarray(np.pad(counts, (0, -len(counts) % width)).reshape(-1, width).sum(axis=1))


def dispersion(bins: "array[int]", duration_s: float) -> dict[int, float]:
    """Index of dispersion of counts for each window of which ten or more fit."""
    out = {}
    for width in WINDOWS_S:
        whole = int(duration_s // width)
        counts = sums(bins, width)
        counts = np.pad(counts, (0, max(whole - len(counts), 0)))[:whole]
        if whole >= 10 and counts.mean():
            out[width] = float(counts.var(ddof=1) / counts.mean())
    return out


def autocorrelation(minutes: Floats) -> dict[int, float]:
    """At each lag that fits twice."""
    out = {}
    centred = minutes - minutes.mean() if len(minutes) else minutes
    power = float((centred**2).sum())
    for lag in LAGS_MIN:
        if len(minutes) >= 2 * lag + 1 and power:
            out[lag] = float((centred[lag:] * centred[:-lag]).sum() / power)
    return out


def spread(values: Counter[int]) -> Spread:
    keys = np.array(sorted(values), dtype=np.int64)
    counts = np.array([values[int(key)] for key in keys], dtype=np.int64)
    ends = np.cumsum(counts)
    total = int(ends[-1])
    ranks = np.ceil(np.array(QUANTILES) * total).clip(1)
    found = keys[np.searchsorted(ends, ranks, side="left")]
    return Spread(
        count=total,
        mean=float((keys * counts).sum() / total),
        least=int(keys[0]),
        greatest=int(keys[-1]),
        quantiles=dict(zip(QUANTILES, found.tolist(), strict=True)),
        tail_index=hill(keys, counts),
    )


def hill(values: Ints, counts: Ints) -> float:
    """Hill's estimate of the tail index from the uppermost TAIL_SHARE (Annals of Statistics 3(5), 1975).

    P(X > x) falls as x^-index: smaller is heavier. (ModServe reads its alpha the other way round.) 0: too few values,
    or all the same.
    """
    total = int(counts.sum())
    k = int(total * TAIL_SHARE)
    above = np.cumsum(counts[::-1])[::-1]  # how many are at least each value
    at = int(np.searchsorted(-above, -(k + 1), side="right")) - 1  # the value of rank k + 1 from the top
    if k < TAIL_LEAST or values[at] <= 0:
        return 0.0
    upper, times = values[at + 1 :], counts[at + 1 :]
    logs = float((np.log(upper / values[at]) * times).sum())
    return k / logs if logs else 0.0
