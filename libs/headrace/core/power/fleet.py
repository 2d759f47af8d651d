"""What the governor governs: devices, the workers that own them, the rows and aisles that they stand in; and readings.

All arrays are over devices unless they say otherwise; a device of several GPUs counts `gpus` times, watts are of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.core.power import law

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
STAGES = ("encode", "prefill", "decode")


@dataclass(frozen=True, slots=True)
class Kind:
    """Of GPU: its power law, P = context + busy x (phase - context) x speed^exponent, and the air that it needs."""

    context_w: float
    encode_w: float
    prefill_w: float
    decode_w: float
    speed_exponent: float
    speed_least: float
    decode_free_speed: float  # decode waits for memory: nothing is lost above it, below in proportion
    air_m3s: float = 0.0  # of its server's airflow at full power, its share; 0: not known
    air_least: float = 0.3  # of that, at no power
    limit_c: float = 83.0

    @classmethod
    def of_most(cls, most_w: float) -> "Kind":
        """A kind that nobody has described: shares of its own limit as they are for an H100 [I]."""
        return cls(0.17 * most_w, most_w, most_w, 0.54 * most_w, 3.56, 0.35, 0.75)


@dataclass(frozen=True, slots=True)
class Device:
    """As a worker tells of it; watts of one GPU."""

    key: str  # worker/device
    worker: int
    kind: Kind
    least_w: float  # the lowest cap; 0: nobody may set one
    most_w: float  # its own limit; 0: not known
    gpus: int = 1


@dataclass(frozen=True, slots=True)
class Member:
    """A worker, and where it stands."""

    name: str
    row: int
    stages: tuple[str, ...] = ()
    opaque: bool = False  # a tenant's own: nothing is known of its work, it gives way last


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    aisle: str = ""
    budget_w: float = 0.0  # 0: none, unless an operator sets one
    air_m3s: float = 0.0  # what it is given of its aisle's air; 0: no limit


@dataclass(frozen=True, slots=True)
class Law:
    """The kinds of a fleet's devices as arrays."""

    context_w: Floats
    phase_w: Floats  # [stage, device]
    exponent: Floats
    speed_least: Floats
    free_speed: Floats

    def speed(self, cap_w: Floats, full_w: Floats) -> Floats:
        """At which what draws full_w at full speed keeps within the cap."""
        return law.speed_under(cap_w, full_w, context_w=self.context_w, exponent=self.exponent, least=self.speed_least)

    def drawn_w(self, full_w: Floats, speed: Floats) -> Floats:
        return law.drawn_w(full_w, speed, context_w=self.context_w, exponent=self.exponent)

    def decode_rate(self, speed: Floats) -> Floats:
        return law.decode_rate(speed, self.free_speed)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who is there. A new object whenever a device, a worker or a place changes: the governor compares identities."""

    rows: tuple[Row, ...]
    members: tuple[Member, ...]
    devices: tuple[Device, ...]
    keys: tuple[str, ...] = field(init=False)
    worker: Numbers = field(init=False)
    row: Numbers = field(init=False)
    aisle: Numbers = field(init=False)  # of each row
    aisles: tuple[str, ...] = field(init=False)
    gpus: Floats = field(init=False)
    least_w: Floats = field(init=False)
    most_w: Floats = field(init=False)
    cappable: Mask = field(init=False)
    opaque: Mask = field(init=False)
    serves: NDArray[np.bool_] = field(init=False)  # [stage, device]
    air_base: Floats = field(init=False)  # m3/s at no power
    air_per_w: Floats = field(init=False)
    limit_c: Floats = field(init=False)
    law: Law = field(init=False)

    def __post_init__(self) -> None:
        devices, members = self.devices, self.members
        names = tuple(dict.fromkeys(row.aisle or row.name for row in self.rows))
        worker = np.array([device.worker for device in devices], dtype=np.int64)
        row_of = np.array([member.row for member in members], dtype=np.int64)
        kinds = [device.kind for device in devices]
        stages = [[stage in member.stages for member in members] for stage in STAGES]
        air = _array([kind.air_m3s for kind in kinds])
        least_air = _array([kind.air_least for kind in kinds])
        peak_w = np.maximum(_array([kind.prefill_w for kind in kinds]), 1.0)
        most_w = _array([device.most_w for device in devices])
        least_w = _array([device.least_w for device in devices])
        made = {
            "keys": tuple(device.key for device in devices),
            "worker": worker,
            "row": row_of[worker] if len(worker) else worker,
            "aisle": np.array([names.index(row.aisle or row.name) for row in self.rows], dtype=np.int64),
            "aisles": names,
            "gpus": _array([max(1, device.gpus) for device in devices]),
            "least_w": least_w,
            "most_w": most_w,
            "cappable": (least_w > 0.0) & (most_w >= least_w),
            "opaque": np.array([members[at].opaque for at in worker], dtype=np.bool_),
            "serves": np.array(stages, dtype=np.bool_).reshape(len(STAGES), len(members))[:, worker],
            "air_base": air * least_air,
            "air_per_w": air * (1.0 - least_air) / peak_w,
            "limit_c": _array([kind.limit_c for kind in kinds]),
            "law": Law(
                _array([kind.context_w for kind in kinds]),
                np.array([[getattr(kind, f"{stage}_w") for kind in kinds] for stage in STAGES], dtype=np.float64),
                _array([kind.speed_exponent for kind in kinds]),
                _array([kind.speed_least for kind in kinds]),
                _array([kind.decode_free_speed for kind in kinds]),
            ),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def by_row(self, values: Floats) -> Floats:
        """Sums over rows of what every GPU of each device has; [row]."""
        found: Floats = np.bincount(self.row, values * self.gpus, len(self.rows)).astype(np.float64)
        return found

    def of_worker(self, values: Floats, empty: float = 1.0) -> Floats:
        """The least of each worker's devices; [worker]."""
        found = np.full(len(self.members), np.inf)
        np.minimum.at(found, self.worker, values)
        found[~np.isfinite(found)] = empty
        return found


@dataclass(frozen=True, slots=True)
class Readings:
    """What devices said last; nan where it is not known. Watts of one GPU."""

    power_w: Floats
    temp_c: Floats
    age_s: Floats  # since the worker was heard
    full_w: Floats  # what it would draw at full speed doing what it did in the last second
    busy: Floats  # share of the last second in which it computed
    speed: Floats  # that it ran at
    cap_w: Floats  # that holds; nan: none
    shares: Floats  # [stage, device] of the busy time lately; zeros where nothing was done
    waiting_s: Floats  # of work at full speed that waits in its worker
    thermal: Floats  # the speed that its temperature allows, of a thermal controller; 1: any
    expected_c: Floats  # of a model of its heat

    @classmethod
    def unknown(cls, devices: int) -> "Readings":
        def nan() -> Floats:
            return np.full(devices, np.nan)

        shares = np.zeros((len(STAGES), devices))
        return cls(nan(), nan(), nan(), nan(), nan(), nan(), nan(), shares, np.zeros(devices), np.ones(devices), nan())


def places(old: Sequence[str], new: Sequence[str]) -> Numbers:
    """Where each of `new` stands in `old`; -1: nowhere."""
    at: Mapping[str, int] = {key: place for place, key in enumerate(old)}
    return np.array([at.get(key, -1) for key in new], dtype=np.int64)


def taken(values: Floats, at: Numbers, fill: float) -> Floats:
    if values.shape[-1] == 0:
        return np.full((*values.shape[:-1], len(at)), fill, dtype=values.dtype)
    found: Floats = np.where(at >= 0, values[..., np.maximum(at, 0)], fill).astype(values.dtype)
    return found


def _array(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float64)
