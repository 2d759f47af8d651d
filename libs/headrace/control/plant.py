"""A datacentre's rows, servers and GPUs as they heat up and draw power: the simulated plant behind the governor.

A step takes the watts of every GPU and the weather, and lets time pass; everything is an array over servers and GPUs.
Inside a step heat is exact (headrace.control.heat): a minute's peak is reported, not what a sample a minute would see.
Airflow follows the GPUs' power, as fans do; where an aisle's servers want more air than it is given they breathe part
of what they have exhaled.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.control import heat
from headrace.control.constants import AIR_J_PER_M3_K, GpuKind, InletLaw, ServerKind, Spread
from headrace.control.heat import Paths
from headrace.control.layout import Layout

Floats = NDArray[np.float64]
START_C = 30.0


@dataclass(frozen=True, slots=True)
class Weather:
    """What a step is given from outside."""

    outside_c: float
    load: float = 0.5  # of the datacentre, 0 to 1: all its halls warm the air that it cools with


@dataclass(frozen=True, slots=True)
class Bursts:
    """The longest run of high power within a step, by GPU: what the mean hides."""

    power_w: Floats
    seconds: Floats


@dataclass(frozen=True, slots=True)
class Seen:
    """The plant after a step: [server, gpu], [server], [row] or [aisle]."""

    die_c: Floats
    sink_c: Floats
    peak_c: Floats  # of the die within the step, its longest burst included
    gpu_w: Floats
    inlet_c: Floats
    airflow_m3s: Floats
    server_w: Floats
    row_w: Floats
    aisle_airflow_m3s: Floats  # that its servers want
    short_of_air: Floats  # share of an aisle's air that has been exhaled before: 0 unless it lacks some


@dataclass(frozen=True, slots=True)
class Varied:
    """What makes each device of its own kind, drawn once from a seed."""

    inlet_k: Floats  # [server]
    load_k: Floats  # [server]: by how much the datacentre's load warms its inlet
    power: Floats  # [server, gpu], factor

    @classmethod
    def draw(cls, layout: Layout, gpus: int, law: InletLaw, spread: Spread, rng: np.random.Generator) -> "Varied":
        rows = rng.normal(0.0, spread.row_k, layout.rows)[layout.row]
        servers = rng.normal(0.0, spread.server_k, layout.servers)
        load = law.load_k * rng.uniform(0.5, 1.0, layout.servers)
        return cls(rows + servers, load, 1.0 + rng.normal(0.0, spread.power, (layout.servers, gpus)))


@dataclass(slots=True)
class Plant:
    """aisle_airflow_m3s: what each aisle is given; unless said, enough for all its servers at full fan speed."""

    layout: Layout
    gpu: GpuKind
    server: ServerKind
    seed: int = 0
    law: InletLaw = field(default_factory=InletLaw)
    spread: Spread = field(default_factory=Spread)
    aisle_airflow_m3s: Floats = field(default_factory=lambda: np.empty(0))
    paths: Paths = field(init=False)
    varied: Varied = field(init=False)
    die_c: Floats = field(init=False)
    sink_c: Floats = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        shape = (self.layout.servers, self.server.gpus)
        factor = np.maximum(0.5, 1.0 + rng.normal(0.0, self.spread.resistance, shape))
        self.paths = Paths.of(self.gpu, factor)
        self.varied = Varied.draw(self.layout, self.server.gpus, self.law, self.spread, rng)
        self.die_c = np.full(shape, START_C)
        self.sink_c = np.full(shape, START_C)
        if not len(self.aisle_airflow_m3s):
            wanted = np.full(self.layout.servers, self.server.airflow_m3s)
            self.aisle_airflow_m3s = self.by_aisle(wanted)

    # --- sums ---

    def by_row(self, values: Floats) -> Floats:
        found: Floats = np.bincount(self.layout.row, values, self.layout.rows).astype(np.float64)
        return found

    def by_aisle(self, values: Floats) -> Floats:
        found: Floats = np.bincount(self.layout.aisle, values, self.layout.aisles).astype(np.float64)
        return found

    # --- laws ---

    def airflow_share(self, gpu_w: Floats) -> Floats:
        """Of each server's full airflow: fans follow the power of the GPUs."""
        least = self.server.airflow_least
        load = np.clip(gpu_w.sum(axis=1) / (self.server.gpus * self.gpu.prefill_w), 0.0, 1.0)
        found: Floats = least + (1.0 - least) * load
        return found

    def server_w(self, gpu_w: Floats, airflow: Floats) -> Floats:
        gpus = gpu_w.sum(axis=1)
        found: Floats = self.server.rest_w + gpus * (1.0 + self.server.rest_share) + self.server.fan_w * airflow**3
        return found

    def inlet_c(self, weather: Weather) -> Floats:
        """Of fresh air at each server."""
        law, (first, second) = self.law, self.law.knots_c
        warm = np.clip(weather.outside_c, first, second) - first
        hot = max(0.0, weather.outside_c - second)
        base = law.floor_c + law.slopes[0] * warm + law.slopes[1] * hot
        found: Floats = base + self.varied.inlet_k + self.varied.load_k * weather.load
        return found

    # --- time ---

    def step(self, gpu_w: Floats, weather: Weather, dt_s: float, bursts: Bursts | None = None) -> Seen:
        """gpu_w: mean watts of each GPU of the kind, [server, gpu]; each draws a little more or less than its kind."""
        drawn_w = gpu_w * self.varied.power
        airflow = self.airflow_share(drawn_w)
        server_w = self.server_w(drawn_w, airflow)
        wanted = airflow * self.server.airflow_m3s
        aisle = self.by_aisle(wanted)
        short = np.maximum(0.0, 1.0 - self.aisle_airflow_m3s / aisle)
        inlet = self.inlet_c(weather) + self._breathed(short, server_w, aisle)
        broad = airflow[:, None]
        heated = heat.step(self.paths, broad, self.die_c, self.sink_c, drawn_w, inlet[:, None], dt_s)
        self.die_c, self.sink_c = heated.die, heated.sink
        peak = heated.peak
        if bursts is not None:
            more_w = np.maximum(0.0, bursts.power_w * self.varied.power - drawn_w)
            peak = peak + heat.burst_k(self.paths, broad, more_w, np.minimum(bursts.seconds, dt_s))
        rows = self.by_row(server_w)
        return Seen(heated.die, heated.sink, peak, drawn_w, inlet, wanted, server_w, rows, aisle, short)

    def _breathed(self, short: Floats, server_w: Floats, aisle: Floats) -> Floats:
        """Kelvin at each server's inlet: a share of the air that it draws comes from its aisle's exhaust.

        In a steady state the mixed air is warmer by share / (1 - share) of what a pass through the servers adds."""
        rise = self.by_aisle(server_w) / (AIR_J_PER_M3_K * aisle)
        again = rise * short / np.maximum(1.0 - short, 0.05)
        found: Floats = again[self.layout.aisle]
        return found
