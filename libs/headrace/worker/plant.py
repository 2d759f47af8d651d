"""The GPUs that a profile's worker plays: what they draw, how warm they get, how fast they run under a cap.

The plant's constants, heat path, power law and sensors (headrace.control), driven by what the worker really does: each
iteration and each batch of media is a stretch of time with its watts. Everything here happens on the event loop.
"""

import zlib
from collections import deque
from dataclasses import dataclass

import numpy as np

from headrace.control import heat, sensing
from headrace.control.constants import GPUS, GpuKind, SensorKind
from headrace.control.power import compute_rate, decode_rate, speed_under, watts_at
from headrace.mesh.sensors import DeviceReading

TICK_S = 0.1  # a die of two seconds warms by half a degree in it at most
WINDOW_TICKS = 10  # power is told as the mean of so many
LATE_S = 0.01  # iterations that make up for a late timer begin so long ago at most
JOINT_S = 1e-6  # iterations that are so near follow at once
RELEASE_K = 2.0  # [I] so far below the hard limit the slowdown ends
GPUS_MAX = 64  # of one worker
DEVICE = "plant:0"


@dataclass(frozen=True, slots=True)
class Gear:
    """How a stage runs now."""

    speed: float  # of the clock, beside the full one
    rate: float  # of the work
    watts: float  # of one GPU
    full_w: float  # at full speed


@dataclass(slots=True)
class Stretch:
    """One stage from start to end, on the loop's clock: an iteration's part, or several that adjoin."""

    gear: Gear
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    watts: float
    busy_s: float
    full_w: float
    speed_s: float  # speed x busy seconds


class Plant:
    def __init__(self, kind: GpuKind, gpus: int, inlet_c: float, worker: str, now_s: float) -> None:
        """gpus do the same and share the worker's work. worker: seeds the noise. now_s: on the loop's clock."""
        self.kind = kind
        self.gpus = gpus
        self.cap_w = 0.0
        self.energy_j = 0.0  # of all GPUs, as the next
        self.idle_j = 0.0  # of it, while nothing was computed
        self._inlet_c = inlet_c
        self._rng = np.random.default_rng(zlib.crc32(worker.encode()))
        self._now_s = now_s
        self._stretches: deque[Stretch] = deque()  # in order, those that are not over at _now_s
        self._last: Stretch | None = None
        self._ticks: deque[Tick] = deque(maxlen=WINDOW_TICKS)
        self._owed_j = 0.0  # that stretches took less than was said when they began
        self._throttled = False
        self._heat = _heat_of_a_tick(kind)
        self.die_c, self._sink_c = _rest(kind, inlet_c)
        self.prefill = self.decode = self.encode = Gear(1.0, 1.0, 0.0, 0.0)
        self._shift()

    def cap(self, cap_w: float) -> None:
        """0: none. Holds from the next iteration on."""
        self.cap_w = cap_w
        self._shift()

    def run(self, gear: Gear, took_s: float, end_s: float) -> float:
        """So long it computes, until end_s, behind all that was told before. Returns joules of all GPUs to charge."""
        if took_s <= 0:
            return 0.0
        start_s, last = end_s - took_s, self._last
        if start_s - self._now_s > TICK_S:
            self.advance(start_s)
        elif start_s < self._now_s:
            self._told_late(gear, min(self._now_s, end_s) - start_s)
        if last is not None and last.gear is gear and abs(start_s - last.end_s) < JOINT_S and last.end_s > self._now_s:
            last.end_s = end_s
        else:
            self._last = Stretch(gear, start_s, end_s)
            self._stretches.append(self._last)
        joules = gear.watts * took_s * self.gpus
        if self._owed_j:
            owed_j = min(self._owed_j, joules)
            self._owed_j -= owed_j
            joules -= owed_j
        return joules

    def _told_late(self, gear: Gear, late_s: float) -> None:
        """The first late_s of it are over here already: a lump."""
        self.energy_j += (gear.watts - self.kind.context_w) * late_s * self.gpus
        self.idle_j -= self.kind.context_w * late_s * self.gpus

    def advance(self, now_s: float) -> None:
        while self._now_s + TICK_S <= now_s - LATE_S:
            self._tick()

    def reading(self, now_s: float) -> DeviceReading:
        self.advance(now_s)
        kind, sensor, ticks = self.kind, SensorKind(), self._ticks or (Tick(self.kind.context_w, 0.0, 0.0, 0.0),)
        window_s = len(ticks) * TICK_S
        busy_s = sum(tick.busy_s for tick in ticks)
        watts = sum(tick.watts for tick in ticks) / len(ticks)
        return DeviceReading(
            DEVICE,
            "plant",
            power_w=float(sensing.power(sensor, watts, self._rng)),
            temp_c=float(sensing.temperature(sensor, self.die_c, self._rng)),
            energy_j=self.energy_j + self._under_way_j(now_s),
            cap_w=self.cap_w,
            cap_least_w=watts_at(kind, kind.prefill_w, kind.speed_least),
            cap_most_w=kind.prefill_w,
            speed=sum(tick.speed_s for tick in ticks) / busy_s if busy_s else self.prefill.speed,
            kind=kind.name,
            full_w=kind.context_w + sum(tick.full_w for tick in ticks) / len(ticks),
            busy=min(1.0, busy_s / window_s),
            gpus=self.gpus,
        )

    def _under_way_j(self, now_s: float) -> float:
        """Of all GPUs, since the last whole tick: whoever takes differences of a counter wants it as of now."""
        joules = self.kind.context_w * (now_s - self._now_s)
        for stretch in self._stretches:
            inside_s = min(stretch.end_s, now_s) - max(stretch.start_s, self._now_s)
            joules += (stretch.gear.watts - self.kind.context_w) * max(0.0, inside_s)
        return joules * self.gpus

    def _tick(self) -> None:
        begin_s, kind = self._now_s, self.kind
        end_s = begin_s + TICK_S
        busy_s = extra_j = slowed_j = full_j = clock_s = 0.0
        for stretch in self._stretches:
            if stretch.start_s >= end_s:
                break
            inside_s = min(stretch.end_s, end_s) - max(stretch.start_s, begin_s)
            if inside_s <= 0:
                continue
            gear = stretch.gear
            spent_j = (gear.watts - kind.context_w) * inside_s
            busy_s += inside_s
            extra_j += spent_j
            slowed_j += spent_j * min(1.0, (kind.hard_speed / gear.speed) ** kind.speed_exponent)
            full_j += (gear.full_w - kind.context_w) * inside_s
            clock_s += gear.speed * inside_s
        while self._stretches and self._stretches[0].end_s <= end_s:
            self._stretches.popleft()
        drawn_j = self._warm(extra_j, slowed_j)
        self._owed_j += (extra_j - drawn_j) * self.gpus
        watts = kind.context_w + drawn_j / TICK_S
        self.energy_j += watts * TICK_S * self.gpus
        self.idle_j += kind.context_w * (TICK_S - busy_s) * self.gpus
        self._ticks.append(Tick(watts, busy_s, full_j / TICK_S, clock_s))
        self._now_s = end_s

    def _warm(self, extra_j: float, slowed_j: float) -> float:
        """The hardware's own protection: it slows down before the die passes the hard limit, whatever is running.

        Of one GPU, above its context watts: what it would draw, and what it draws slowed down. Returns what it drew.
        """
        before = self._throttled
        drawn_j = slowed_j if before else extra_j
        die_c, sink_c = self._after(drawn_j)
        if not before and die_c > self.kind.hard_limit_c:
            self._throttled, drawn_j = True, slowed_j
            die_c, sink_c = self._after(drawn_j)
        elif before and die_c < self.kind.hard_limit_c - RELEASE_K:
            self._throttled = False
        self.die_c, self._sink_c = die_c, sink_c
        if before != self._throttled:
            self._shift()
        return drawn_j

    def _after(self, extra_j: float) -> tuple[float, float]:
        watts, inlet_c = self.kind.context_w + extra_j / TICK_S, self._inlet_c
        die, sink = (
            by_die * self.die_c + by_sink * self._sink_c + by_watt * watts + by_inlet * inlet_c
            for by_die, by_sink, by_watt, by_inlet in self._heat
        )
        return die, sink

    def _shift(self) -> None:
        """The gears follow cap and throttle."""
        kind = self.kind
        most = kind.hard_speed if self._throttled else 1.0

        def gear(full_w: float, *, decodes: bool = False) -> Gear:
            speed = min(most, float(speed_under(kind, self.cap_w, full_w)) if self.cap_w else 1.0)
            rate = float(decode_rate(kind, speed) if decodes else compute_rate(speed))
            return Gear(speed, rate, watts_at(kind, full_w, speed), full_w)

        self.prefill, self.encode = gear(kind.prefill_w), gear(kind.encode_w)
        self.decode = gear(kind.decode_w, decodes=True)


def _rest(kind: GpuKind, inlet_c: float) -> tuple[float, float]:
    """Die and sink of GPUs that have idled for long."""
    paths = heat.Paths.of(kind, np.ones(1))
    die, sink = heat.settled(paths, paths.sink_air, np.array([kind.context_w]), np.array([inlet_c]))
    return float(die[0]), float(sink[0])


def _heat_of_a_tick(kind: GpuKind) -> list[tuple[float, ...]]:
    """Die and sink after a tick as sums of die, sink, watts and inlet before it, at full airflow.

    heat's step is linear: four unit steps tell it.
    """
    unit = np.eye(4)
    paths = heat.Paths.of(kind, np.ones(4))
    after = heat.step(paths, np.ones(4), unit[0], unit[1], unit[2], unit[3], TICK_S)
    return [tuple(map(float, after.die)), tuple(map(float, after.sink))]


def plant_of(spoken: str, gpu: str, gpus: int) -> tuple[GpuKind, int] | None:
    """Kind and number of GPUs; None: no plant. spoken: HEADRACE_PLANT; gpu, gpus: as the profile says.

    Raises:
        ValueError: no such GPU.
    """
    if spoken == "off":
        return None
    if not spoken:
        return (GPUS[gpu], gpus) if gpu in GPUS else None
    name, times, count = spoken.partition("x")
    if not times:
        count = "1"
    if name not in GPUS or not count.isdecimal() or not 1 <= int(count) <= GPUS_MAX:
        raise ValueError(f"must be off, {', '.join(GPUS)}, or several of them as in h100x8; got {spoken!r}")
    return GPUS[name], int(count)
