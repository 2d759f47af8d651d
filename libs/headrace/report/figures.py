"""Which charts a page has. Colour and dash stand for a policy in every one of them, so one legend reads them all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from headrace.report import axes, chart
from headrace.report.axes import Axis
from headrace.report.chart import Line, Mark
from headrace.report.compare import Compared, class_names
from headrace.report.digest import Curve, Digest
from headrace.report.units import WATTS, unit_for
from headrace.sim.result import Floats, Pool


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Section:
    name: str  # of its anchor
    title: str
    note: str
    figures: tuple[Figure, ...]


def sections(compared: Sequence[Compared], marks: Sequence[Mark] = ()) -> list[Section]:
    """Everything drawn; over time each policy's first seed. `marks` are instants in seconds since the beginning."""
    drawing = _Drawing(compared, marks)
    return [
        _attainment(compared),
        _latency(drawing),
        _spread(drawing),
        _queues(drawing),
        _pools(drawing),
        _power(drawing),
    ]


class _Drawing:
    """The policies' first runs on one axis of time."""

    def __init__(self, compared: Sequence[Compared], marks: Sequence[Mark]) -> None:
        self.runs = [each.first for each in compared]
        self._x, self._unit_s = axes.clock(max(max(run.duration_s, *run.t_s[-1:]) for run in self.runs))
        self._marks = [Mark(mark.x / self._unit_s, str(at)) for at, mark in enumerate(marks, 1)]

    def over_time(
        self,
        title: str,
        curve: Callable[[Digest], Curve],
        axis: Callable[[Iterable[float]], Axis],
        *,
        step: bool = False,
    ) -> Figure:
        curves = [curve(run) for run in self.runs]
        lines = [
            Line(run.policy, Curve(each.x / self._unit_s, each.y), style, step)
            for style, (run, each) in enumerate(zip(self.runs, curves, strict=True))
        ]
        y = axis(float(value) for each in curves for value in each.y)
        return Figure(title, chart.lines(title, lines, self._x, y, self._marks))

    def cumulated(self, title: str, curve: Callable[[Digest], Curve], what: str, marks: Sequence[Mark] = ()) -> Figure:
        curves = [curve(run) for run in self.runs]
        lines = [
            Line(run.policy, Curve(each.x, each.y * 100), style)
            for style, (run, each) in enumerate(zip(self.runs, curves, strict=True))
        ]
        x = axes.logarithmic(f"{what}, s", (float(value) for each in curves for value in each.x))
        return Figure(title, chart.lines(title, lines, x, axes.linear("share, %", (), high=100.0), marks))

    def pool_names(self) -> list[str]:
        return list(dict.fromkeys(pool.name for run in self.runs for pool in run.pools))

    def of_pool(self, name: str, series: Callable[[Pool], Floats]) -> Callable[[Digest], Curve]:
        def curve(run: Digest) -> Curve:
            found = [series(pool) for pool in run.pools if pool.name == name]
            return Curve(run.t_s, found[0]) if found else Curve(np.empty(0), np.empty(0))

        return curve

    def steady(self, name: str, series: Callable[[Pool], Floats]) -> float | None:
        """The one value that a pool's series has in every run, None if there are several."""
        values = np.concatenate([self.of_pool(name, series)(run).y for run in self.runs])
        return float(values[0]) if len(values) and bool(np.all(values == values[0])) else None


def _attainment(compared: Sequence[Compared]) -> Section:
    title = "Requests that finished, with their first token in time"
    targets = {slo.name: slo.ttft_s for slo in compared[0].first.classes}
    groups = [
        (f"{name}: within {targets[name]:g} s", [(each.policy, each.attainment(name)) for each in compared])
        for name in class_names(compared)
    ]
    several = any(len(each.runs) > 1 for each in compared)
    note = "Whiskers: 95 % interval of the mean over the seeds." if several else "One seed: no interval."
    return Section("attainment", "Promises kept", note, (Figure(title, chart.bars(title, groups)),))


def _latency(drawing: _Drawing) -> Section:
    figures = []
    for key, short, long in (("ttft", "TTFT", "time to first token"), ("tbt", "TBT", "time between tokens")):
        for share, words in (("p50", "median"), ("p99", "99th percentile")):
            figures.append(
                drawing.over_time(
                    f"{long.capitalize()}, {words}",
                    lambda run, key=key, share=share: getattr(run, key)[share],  # type: ignore[misc]
                    lambda values, label=f"{short} {share}, s": axes.logarithmic(label, values),  # type: ignore[misc]
                )
            )
    note = "Per window of arrival (TTFT), and of each request's mean gap per window of its end (TBT). Logarithmic."
    return Section("latency", "Latency over time", note, tuple(figures))


def _spread(drawing: _Drawing) -> Section:
    targets = [Mark(slo.ttft_s, f"{slo.name} {slo.ttft_s:g} s") for slo in drawing.runs[0].classes]
    figures = (
        drawing.cumulated("Time to first token", lambda run: run.ttft_cdf, "TTFT", targets),
        drawing.cumulated("Time between tokens", lambda run: run.tbt_cdf, "TBT"),
    )
    note = (
        "The share of requests (TTFT) and of gaps between tokens (TBT) that took no longer. A request that never had"
        " a first token is in no share: a curve that ends below 100 % shows them."
    )
    return Section("distribution", "Latency, distribution", note, figures)


def _queues(drawing: _Drawing) -> Section:
    classes = list(dict.fromkeys(name for run in drawing.runs for name in run.waiting))
    figures = [
        drawing.over_time(
            f"In the manager: {name}",
            lambda run, name=name: Curve(run.t_s, run.waiting[name]),  # type: ignore[misc]
            lambda values: axes.linear("requests waiting", values),
        )
        for name in classes
    ]
    figures += [
        drawing.over_time(
            f"At the workers: {name}",
            drawing.of_pool(name, lambda pool: pool.waiting),
            lambda values: axes.linear("waiting for a batch", values),
        )
        for name in drawing.pool_names()
    ]
    note = "In the queue manager by class; at the workers by pool: sequences waiting for prefill, parts for an encoder."
    return Section("queues", "Queues", note, tuple(figures))


def _pools(drawing: _Drawing) -> Section:
    figures = [drawing.over_time("GPUs of all pools", _gpus, lambda values: axes.linear("GPUs up", values), step=True)]
    told = []
    for name in drawing.pool_names():
        figures += _of_pool(drawing, name)
        pool = next(pool for run in drawing.runs for pool in run.pools if pool.name == name)
        up = drawing.steady(name, lambda pool: pool.instances)
        count = "a changing number of instances" if up is None else f"{up:g} instances throughout"
        told.append(
            f"{name} ({', '.join(pool.stages)}): {count}, {pool.gpus_each} GPU{'s' if pool.gpus_each > 1 else ''} each"
        )
    return Section("pools", "Pools", "; ".join(told) + ".", tuple(figures))


def _of_pool(drawing: _Drawing, name: str) -> list[Figure]:
    """What never changes (instances) or never is (KV of an encoder) needs no chart."""

    def drawn(
        title: str, series: Callable[[Pool], Floats], label: str, high: float = 0.0, step: bool = False
    ) -> Figure:
        curve = drawing.of_pool(name, series)
        return drawing.over_time(title, curve, lambda values: axes.linear(label, values, high=high), step=step)

    figures = []
    if drawing.steady(name, lambda pool: pool.instances) is None:
        figures.append(drawn(f"{name}: instances", lambda pool: pool.instances, "instances up", step=True))
    figures.append(drawn(f"{name}: utilisation", lambda pool: pool.busy_share * 100, "busy, % of the time", 100.0))
    figures.append(drawn(f"{name}: in batches", lambda pool: pool.running, "sequences or parts"))
    if drawing.steady(name, lambda pool: pool.kv_share) != 0.0:
        figures.append(drawn(f"{name}: KV cache", lambda pool: pool.kv_share * 100, "blocks reserved, %", 100.0))
    return figures


def _gpus(run: Digest) -> Curve:
    none = np.zeros(len(run.t_s))
    return Curve(run.t_s, sum((pool.instances * pool.gpus_each for pool in run.pools), none))


def _power(drawing: _Drawing) -> Section:
    names = drawing.pool_names()
    highest = max((float(_watts(run, names, 1.0).y.max(initial=0.0)) for run in drawing.runs), default=0.0)
    unit = unit_for([highest], WATTS)
    of = [("All pools", names), *((name, [name]) for name in names if len(names) > 1)]
    figures = [
        drawing.over_time(
            title,
            lambda run, some=some: _watts(run, some, unit.size),  # type: ignore[misc]
            lambda values: axes.linear(f"power, {unit.name}", values),
        )
        for title, some in of
    ]
    return Section("power", "Power", "GPUs alone; the mean over each sampled interval.", tuple(figures))


def _watts(run: Digest, names: Sequence[str], unit_w: float) -> Curve:
    none = np.zeros(len(run.t_s))
    return Curve(run.t_s, sum((pool.power_w / unit_w for pool in run.pools if pool.name in names), none))
