"""Who draws what in a TAPAS week: opaque tenants of customers, serving endpoints with recorded traffic, the weather.

Half of the instances are opaque (a customer's own, they can only be capped), half serve an endpoint. An instance has a
server to itself. All of it follows from the case and its seed alone, so that every variant sees the same week.
"""

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import GPUS, SERVERS, GpuKind, ServerKind
from headrace.control.layout import Layout
from headrace.core.power.templates import Templates

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
MINUTES_OF_DAY = 1_440
RATES = "azure_2024_2025_digitised_rate_envelopes.csv.gz"
WEATHER = "tmy3_greensboro_hourly.csv.gz"
OCCUPIED = 0.92  # [I] of the servers
SERVER_FULL_W = 8_400.0  # an H100 server at its most (2604.07345) [S]
PROVISIONED = 0.80  # [I] of that, times servers, is what a row is given: rows are bought for less than their sum
AIR_PROVISIONED = 0.85  # [I] of full airflow, likewise
BUSY_HIGH = 0.85  # [I] of an endpoint's capacity that its 99.5th percentile minute takes
CUSTOMER_SERVERS = 6.0  # [I] mean of a geometric distribution: a few large customers, many small ones
SUMMER_DAY = 190  # of the year, the first of the week of seed 0; each seed begins three days later


class DataError(ValueError):
    """A recorded trace that is missing."""


@dataclass(frozen=True, slots=True)
class EndpointKind:
    """An endpoint's traffic, and its share of the serving instances."""

    name: str
    trace: str
    series: str
    share: float
    prefill: float  # share of a busy instance's time that is compute-bound [I], from the trace's prompts and answers


# Llama2-70B on eight H100 (splitwise-sim's medians): 1,155 in and 211 out in a batch of 32 take 85 and 254 ms of it.
ENDPOINTS = (
    EndpointKind("conversation", "azure2024", "conv", 0.40, 0.25),
    EndpointKind("code", "azure2024", "code", 0.30, 0.80),
    EndpointKind("images", "azure2025_lmm", "image", 0.15, 0.60),
    EndpointKind("text", "azure2025_lmm", "text", 0.15, 0.40),
)


@dataclass(frozen=True, slots=True)
class Case:
    """over: servers beyond those that power and air were bought for, as a share."""

    seed: int = 1
    days: int = 7
    rows: int = 4
    servers_of_row: int = 20
    over: float = 0.0
    gpu: str = "h100"
    warm_k: float = 0.0  # by which the hall's air is warmer than the inlet law has it

    @property
    def layout(self) -> Layout:
        return Layout(self.rows, round(self.servers_of_row * (1.0 + self.over)))

    @property
    def kind(self) -> GpuKind:
        return GPUS[self.gpu]

    @property
    def server(self) -> ServerKind:
        return SERVERS[self.gpu]

    @property
    def minutes(self) -> int:
        return self.days * MINUTES_OF_DAY

    @property
    def row_most_w(self) -> Floats:
        return np.full(self.rows, self.servers_of_row * SERVER_FULL_W * PROVISIONED)

    @property
    def aisle_most_m3s(self) -> Floats:
        aisles = self.layout.aisles
        return np.full(aisles, 2 * self.servers_of_row * self.server.airflow_m3s * AIR_PROVISIONED)


@dataclass(frozen=True, slots=True)
class Load:
    """[minute, instance]; instances are in the order in which they come."""

    opaque: Floats  # busy share of each opaque instance
    templates: Floats  # [opaque instance, hour of the week], of its last week: what placement may know
    customer: Numbers  # of each opaque instance
    endpoint: Numbers  # of each serving instance, an index into ENDPOINTS
    work: Floats  # [minute, endpoint], in instances at full speed of the best configuration
    outside_c: Floats  # [minute]
    order: Numbers  # in which instances are placed: opaque by number, serving behind them

    @property
    def opaques(self) -> int:
        return len(self.customer)

    @property
    def servings(self) -> int:
        return len(self.endpoint)


def load(case: Case, data: Path) -> Load:
    """Raises DataError."""
    rng = np.random.default_rng([case.seed, case.layout.servers])
    count = round(OCCUPIED * case.layout.servers)
    opaques = count // 2
    customer = _customers(rng, opaques)
    endpoint = np.repeat(np.arange(len(ENDPOINTS)), _shares(count - opaques))
    work = np.stack([_work(data, kind, int((endpoint == at).sum()), case, rng) for at, kind in enumerate(ENDPOINTS)], 1)
    history = 7 * MINUTES_OF_DAY
    opaque = _opaque(rng, customer, history + case.minutes)
    return Load(
        opaque[history:],
        _templates(opaque[:history]),
        customer,
        endpoint,
        work,
        _weather(data, case),
        _order(rng, customer, endpoint),
    )


def _customers(rng: np.random.Generator, count: int) -> Numbers:
    sizes: list[int] = []
    while sum(sizes) < count:
        sizes.append(int(rng.geometric(1.0 / CUSTOMER_SERVERS)))
    return np.repeat(np.arange(len(sizes)), sizes)[:count]


def _shares(count: int) -> Numbers:
    exact = np.array([kind.share for kind in ENDPOINTS]) * count
    whole: Numbers = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact)[: count - int(whole.sum())]] += 1
    return whole


def _opaque(rng: np.random.Generator, customer: Numbers, minutes: int) -> Floats:
    """A customer's instances rise and fall together; peaks and phases as in the toy study of the specification [M]."""
    customers = int(customer.max()) + 1
    peak, phase = rng.uniform(0.55, 1.0, customers), rng.uniform(0.0, 1.0, customers)
    day = np.arange(minutes)[:, None] / MINUTES_OF_DAY
    wave = peak * (0.75 + 0.25 * np.sin(2 * np.pi * (day + phase)))
    slow = rng.normal(0.0, 0.03, (minutes // 30 + 2, len(customer)))
    at = np.arange(minutes) / 30.0
    low = at.astype(int)
    drift = slow[low] + (at - low)[:, None] * (slow[low + 1] - slow[low])
    found: Floats = np.clip(wave[:, customer] + drift + rng.normal(0.0, 0.02, drift.shape), 0.0, 1.0)
    return found


def _templates(week: Floats) -> Floats:
    known = Templates(week.shape[1], worst=1.0)
    for minute, busy in enumerate(week):
        known.learn(60.0 * minute, busy)
    return np.array([known.of(tenant) for tenant in range(week.shape[1])])


def _work(data: Path, kind: EndpointKind, instances: int, case: Case, rng: np.random.Generator) -> Floats:
    hours, low, high = _envelope(data, kind)
    at = (np.arange(case.minutes) / 60.0) % 168.0
    least, most = np.interp(at, hours, low), np.interp(at, hours, high)
    rate = least + (most - least) * rng.uniform(0.0, 1.0, case.minutes)
    found: Floats = rate / np.quantile(rate, 0.995) * BUSY_HIGH * instances
    return found


def _envelope(data: Path, kind: EndpointKind) -> tuple[Floats, Floats, Floats]:
    rows = [
        (float(row["hours"]), float(row["env_min_per_min"]), float(row["env_max_per_min"]))
        for row in _rows(data / RATES)
        if (row["trace"], row["series"]) == (kind.trace, kind.series)
    ]
    hours, low, high = np.array(rows).T
    return hours, low, high


def _weather(data: Path, case: Case) -> Floats:
    """A summer week."""
    degrees = np.array([float(row["temp_air"]) for row in _rows(data / WEATHER)])
    begin = (SUMMER_DAY + 3 * case.seed) * 24
    at = begin + np.arange(case.minutes) / 60.0
    found: Floats = np.interp(at % len(degrees), np.arange(len(degrees)), degrees).astype(np.float64)
    return found


def _order(rng: np.random.Generator, customer: Numbers, endpoint: Numbers) -> Numbers:
    """Customers and endpoints come as wholes, at random among one another: so big ones cluster where space is."""
    units = [*(np.flatnonzero(customer == each) for each in range(int(customer.max()) + 1))]
    units += [len(customer) + np.flatnonzero(endpoint == each) for each in range(len(ENDPOINTS))]
    # An endpoint grows over time: its instances come in handfuls.
    pieces = [piece for unit in units for piece in np.array_split(unit, max(1, len(unit) // 4))]
    return np.concatenate([pieces[at] for at in rng.permutation(len(pieces))])


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path} is missing: --data names the folder of recorded traces")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))
