"""What a pass over a trace keeps beside headrace.workload.statistics: instants and whole distributions, by kind.

Memory grows with requests by eight bytes each, and with the number of different token counts.
"""

import itertools
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from headrace.characterize.drawing import Points
from headrace.workload.arrival import Arrival
from headrace.workload.rates import Floats
from headrace.workload.statistics import Statistics, describe, kind

POINTS = 240  # of a chart
WINDOW_GAPS = 20  # fewer say nothing about their spread
# A window is the shortest of these that has its gaps and leaves no more than POINTS of them.
WINDOWS_S = (10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 6 * 3600.0)


@dataclass(slots=True)
class Seen:
    """By kind of request, and "all" where there are several kinds."""

    instants_s: dict[str, "array[float]"] = field(default_factory=dict)
    context: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))  # text and told media tokens
    output: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    images: Counter[int] = field(default_factory=Counter)  # of a request that has some

    def through(self, arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        for arrival in arrivals:
            own = kind(arrival)
            for name in ("all", own):
                self.instants_s.setdefault(name, array("d")).append(arrival.at_s)
            self.context[own][arrival.input_tokens + sum([part.tokens for part in arrival.parts])] += 1
            self.output[own][arrival.output_tokens] += 1
            if images := sum([part.modality == "image" for part in arrival.parts]):
                self.images[images] += 1
            yield arrival

    @property
    def kinds(self) -> list[str]:
        """The most frequent first; "all" only beside several."""
        own = sorted((name for name in self.instants_s if name != "all"), key=lambda name: -len(self.instants_s[name]))
        return ["all", *own] if len(own) > 1 else own

    @property
    def from_s(self) -> float:
        return self.instants_s["all"][0]

    def times(self, name: str) -> Floats:
        """Seconds since the first arrival of any kind."""
        return np.asarray(self.instants_s[name], np.float64) - self.from_s


def look(arrivals: Iterable[Arrival]) -> tuple[Statistics, Seen]:
    seen = Seen()
    return describe(seen.through(arrivals)), seen


def cdf(counts: Counter[int]) -> Points:
    """(value, % of all that are no greater), thinned."""
    values = np.array(sorted(counts), dtype=np.float64)
    shares = np.cumsum([counts[int(value)] for value in values]) / counts.total() * 100
    if len(values) > POINTS:
        at = np.unique(np.searchsorted(shares, np.linspace(shares[0], 100.0 - 1e-9, POINTS)).clip(max=len(values) - 1))
        values, shares = values[at], shares[at]
    return list(zip(values.tolist(), shares.tolist(), strict=True))


def quantile(counts: Counter[int], share: float) -> int:
    """The least value that so many are not greater than."""
    values = np.array(sorted(counts))
    ends = np.cumsum([counts[int(value)] for value in values])
    return int(values[np.searchsorted(ends, max(1, np.ceil(share * ends[-1])))])


def rate(times_s: Floats, duration_s: float) -> Points:
    """(seconds, requests a second) of equal windows."""
    edges = np.linspace(0.0, max(duration_s, 1e-9), max(1, min(POINTS, len(times_s) // 4)) + 1)
    counts, _ = np.histogram(times_s, edges)
    middles, wide = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    return list(zip(middles.tolist(), (counts / wide).tolist(), strict=True))


def window_s(times_s: Floats, duration_s: float) -> float:
    """For cv(): 0 where there is too little traffic for any."""
    for width in WINDOWS_S:
        windows = duration_s / width
        if 4 <= windows <= POINTS and len(times_s) / windows >= WINDOW_GAPS:
            return width
    return 0.0


def cv(times_s: Floats, width_s: float) -> Points:
    """(seconds, coefficient of variation of the gaps that begin and end in the window); Poisson: 1."""
    found: list[tuple[float, float]] = []
    if width_s <= 0:
        return found
    starts = np.searchsorted(times_s, np.arange(0.0, float(times_s[-1]) + width_s, width_s))
    for number, (first, last) in enumerate(itertools.pairwise(starts)):
        gaps = np.diff(times_s[first:last])
        if len(gaps) >= WINDOW_GAPS and gaps.mean() > 0:
            found.append(((number + 0.5) * width_s, float(gaps.std() / gaps.mean())))
    return found


def bin_s(duration_s: float) -> float:
    """Of the rate whose autocorrelation is drawn: minutes where there are two hours of them."""
    return next((width for width in (60.0, 10.0, 1.0) if duration_s / width >= 2 * 60), 1.0)


def autocorrelation(times_s: Floats, duration_s: float) -> Points:
    """(lag in seconds, correlation of the rate with itself so much later), up to half the trace or a day and a half."""
    width = bin_s(duration_s)
    counts, _ = np.histogram(times_s, np.arange(0.0, duration_s + width, width))
    most = min(len(counts) // 2, int(36 * 3600 / width))
    centred = counts - counts.mean()
    power = float((centred**2).sum())
    if most < 1 or not power:
        return []
    lags = np.unique(np.linspace(1, most, POINTS).astype(int)).tolist()
    return [(float(lag * width), float((centred[lag:] * centred[:-lag]).sum() / power)) for lag in lags]
