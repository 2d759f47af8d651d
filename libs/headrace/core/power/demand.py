"""What each device would draw if nothing held it back, and the least with which it still does all its work.

Both rise at once and fall slowly: a device that begins to work is given watts within a second, and one that pauses
keeps them for some, so that caps do not follow the noise of single seconds.
"""

from dataclasses import dataclass, field

import numpy as np

from headrace.core.power.fleet import STAGES, Fleet, Floats, Mask, Numbers, Readings, taken

IDLE = 0.02  # share of a second; below it a device counts as idle
# Share of a second from which on nobody knows how much more it would do: what it is taken to need grows, each second by
# so much: in any case, by every second of work that waits there, and if it decodes, where nothing ever waits [I].
SATURATED, GROWS, GROWS_WAITING, GROWS_DECODING = 0.98, 0.03, 0.5, 0.15
LIGHT = 0.85  # [I] how busy a device may be at the speed that it is slowed down to first
JUST = 0.92  # [I] and then: its work waits longer, but is done
DRAIN_S = 10.0  # [I] what waits is to be done within so long
# [I] of the way down, each second: of one that works, whose single seconds differ, and of one that stands idle.
FALL, FALL_IDLE = 0.1, 0.3
AT_CAP = 0.93  # share of its cap from which on a device of unknown demand counts as held back by it
MARGIN = 1.15  # above what it draws, for a device of unknown demand
DECODES = 0.9  # share of its work from which on a device counts as decoding
ENCODE, PREFILL, DECODE = (STAGES.index(name) for name in ("encode", "prefill", "decode"))


@dataclass(slots=True)
class Demand:
    """Watts and shares of each device; before anything is known of it, it wants all."""

    want_w: Floats = field(default_factory=lambda: np.empty(0))  # at full speed, while it computes
    need: Floats = field(default_factory=lambda: np.empty(0))  # share of full speed at which it would just do its work
    shares: Floats = field(default_factory=lambda: np.empty((len(STAGES), 0)))  # of its work, by stage

    def move(self, at: Numbers) -> None:
        self.want_w = taken(self.want_w, at, np.inf)
        self.need = taken(self.need, at, 1.0)
        self.shares = taken(self.shares, at, 0.0)

    def follow(self, fleet: Fleet, seen: Readings, believed: Mask, passed_s: float) -> None:
        known = np.isfinite(seen.full_w) & np.isfinite(seen.busy)
        want, need = self._of_work(fleet, seen, passed_s)
        want_unknown, need_unknown = _of_power(fleet, seen)
        want, need = np.where(known, want, want_unknown), np.where(known, need, need_unknown)
        most = np.where(fleet.most_w > 0.0, fleet.most_w, np.inf)
        want = np.clip(want, fleet.least_w, most)
        heard = np.isfinite(self.want_w)
        fall = passed_s * np.where(need < IDLE, FALL_IDLE, FALL)
        self.need = np.where(believed, np.where(heard, _followed(self.need, need, fall), need), self.need)
        self.want_w = np.where(believed, np.where(heard, _followed(self.want_w, want, fall), want), self.want_w)
        worked = believed & (seen.shares.sum(axis=0) > 0.0)
        fresh = worked & (self.shares.sum(axis=0) == 0.0)
        moved = self.shares + np.where(fresh, 1.0, FALL_IDLE) * (seen.shares - self.shares)
        self.shares = np.where(worked, moved, self.shares)

    def _of_work(self, fleet: Fleet, seen: Readings, passed_s: float) -> tuple[Floats, Floats]:
        """From what a worker says of its work: mean watts at full speed, and how long it computed."""
        law = fleet.law
        busy, full = np.nan_to_num(seen.busy), np.nan_to_num(seen.full_w)
        short = busy < 0.05  # too little to say what it draws meanwhile
        phase = (law.phase_w * fleet.serves).max(axis=0)
        before = np.where(np.isfinite(self.want_w), self.want_w, np.where(phase > 0.0, phase, fleet.most_w))
        want = np.where(short, before, law.context_w + (full - law.context_w) / np.maximum(busy, 0.05))
        held = np.where(np.isfinite(seen.cap_w), seen.cap_w, np.inf)
        speed = np.where(np.isfinite(seen.speed) & (seen.speed > 0.0), seen.speed, law.speed(held, want))
        decoded = self.decodes_share
        rate = decoded * law.decode_rate(speed) + (1.0 - decoded) * speed
        done = busy * rate
        grows = np.maximum(np.minimum(seen.waiting_s, 1.0) * GROWS_WAITING, decoded * GROWS_DECODING) + GROWS
        more = np.maximum(done, np.minimum(self.need, 1.0)) * (1.0 + grows * passed_s)
        need = np.where(busy >= SATURATED, more, done) + seen.waiting_s / DRAIN_S
        return want, np.minimum(need, 1.0)

    @property
    def decodes_share(self) -> Floats:
        """Of its work; 0 where nothing is known of it."""
        total = self.shares.sum(axis=0)
        found: Floats = np.where(total > 0.0, self.shares[DECODE] / np.maximum(total, 1e-9), 0.0)
        return found

    def idle(self) -> Mask:
        found: Mask = self.need < IDLE
        return found

    def floors(self, fleet: Fleet) -> "Wishes":
        law, idle = fleet.law, self.idle()
        want = np.where(idle, fleet.least_w, np.maximum(self.want_w, fleet.least_w))
        decodes = self._decodes(fleet)
        free = np.where(decodes, law.drawn_w(want, law.free_speed), want)

        def working(busy: float) -> Floats:
            """Watts at which it does its work in that share of the time."""
            rate = np.minimum(1.0, self.need / busy)
            speed = np.where(decodes, rate * law.free_speed, rate)
            return np.minimum(free, law.drawn_w(want, np.clip(speed, law.speed_least, 1.0)))

        def bound(watts: Floats) -> Floats:
            return np.where(fleet.opaque, want, np.maximum(watts, fleet.least_w))

        return Wishes(want, bound(free), bound(working(LIGHT)), bound(working(JUST)))

    def _decodes(self, fleet: Fleet) -> Mask:
        """Only decode; before it has done anything, by what its worker is for."""
        only = fleet.serves[DECODE] & ~fleet.serves[PREFILL] & ~fleet.serves[ENCODE]
        found: Mask = np.where(self.shares.sum(axis=0) > 0.0, self.decodes_share >= DECODES, only)
        return found

    def stage(self, fleet: Fleet) -> Numbers:
        """Of STAGES, what each device mostly does, or is for."""
        doing = np.where(self.shares.sum(axis=0) > 0.0, self.shares, fleet.serves)
        found: Numbers = doing.argmax(axis=0)
        return found


@dataclass(frozen=True, slots=True)
class Wishes:
    """Watts of each device, each no more than the one before; an opaque tenant keeps what it wants throughout."""

    want: Floats  # at full speed
    free: Floats  # the same but for decode, which loses nothing down to here
    light: Floats  # that do its work with time to spare
    just: Floats  # and with hardly any


def _of_power(fleet: Fleet, seen: Readings) -> tuple[Floats, Floats]:
    """From watts alone: a device at its cap wants all that it may, another a little more than it draws."""
    power = np.nan_to_num(seen.power_w)
    most = np.where(fleet.most_w > 0.0, fleet.most_w, power * MARGIN)
    held = np.where(np.isfinite(seen.cap_w), np.minimum(seen.cap_w, most), most)
    want = np.where(power >= AT_CAP * held, most, power * MARGIN)
    idle = power <= fleet.law.context_w * MARGIN
    return want, np.where(idle, 0.0, 1.0)


def _followed(value: Floats, now: Floats, fall: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        found: Floats = np.maximum(now, value + fall * (now - value))
    return found
