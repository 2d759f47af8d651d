"""From what devices should draw to the caps that are sent: lowered at once, raised only out of what is really free.

A watt counts as taken as long as some device may still use it: until its worker reports that the lower cap holds. So
the caps that hold never add up to more than the limit, in whatever order messages come and whichever are lost; a watt
that changes its owner is unused for about a second. Small differences change nothing.
"""

from dataclasses import dataclass, field

import numpy as np

from headrace.core.power.fleet import Fleet, Floats, Mask, Numbers, taken

BAND = 0.02  # of a device's most: a cap so near to what it should be stays
UNUSED = 0.01  # of a row's watts, that such caps may leave unused
CONFIRMED_W = 1.0  # a worker's cap may differ by so much from what it was told: whole watts
ON_ITS_WAY_S = 0.2  # [I] a report that comes so soon after a lower cap was sent may be older than that
DEAF_S = 2.0  # a device that does not follow for so long counts with what it reports


@dataclass(slots=True)
class Holding:
    cap_w: Floats = field(default_factory=lambda: np.empty(0))  # sent last; the device's most: none
    high_w: Floats = field(default_factory=lambda: np.empty(0))  # the highest sent since it was heard to follow
    lowered_s: Floats = field(default_factory=lambda: np.empty(0))
    deaf_s: Floats = field(default_factory=lambda: np.empty(0))  # for so long it has not followed

    def move(self, at: Numbers) -> None:
        self.cap_w, self.high_w = taken(self.cap_w, at, np.inf), taken(self.high_w, at, np.inf)
        self.lowered_s = taken(self.lowered_s, at, -np.inf)
        self.deaf_s = taken(self.deaf_s, at, 0.0)

    def adopt(self, fleet: Fleet, reported_w: Floats) -> None:
        """Devices that nobody has been told of: the cap that they came with is where they begin."""
        new = ~np.isfinite(self.cap_w)
        came = np.minimum(np.where(np.isfinite(reported_w), reported_w, np.inf), fleet.most_w)
        self.cap_w = np.where(new, came, self.cap_w)
        self.high_w = np.where(new, came, self.high_w)

    def held(self, fleet: Fleet, reported_w: Floats, heard_s: Floats) -> Floats:
        """What each device may still draw: what it said that holds, or the highest that it has been told since."""
        self.high_w = np.where(heard_s > self.lowered_s + ON_ITS_WAY_S, self.cap_w, self.high_w)
        said = np.where(np.isfinite(reported_w), reported_w, np.inf)
        found: Floats = np.minimum(np.maximum(said, self.high_w), fleet.most_w)
        return found

    def count(self, held_w: Floats, counted: Mask, passed_s: float) -> None:
        """Who keeps another cap than it was told, and for how long."""
        off = counted & (held_w > self.cap_w + CONFIRMED_W)
        self.deaf_s = np.where(off, np.minimum(self.deaf_s + passed_s, DEAF_S), 0.0)

    def is_deaf(self) -> Mask:
        found: Mask = self.deaf_s >= DEAF_S
        return found

    def settle(self, fleet: Fleet, target_w: Floats, limit_w: Floats, counts: Floats, fixed: Mask) -> Floats:
        """Targets, or the caps before where those are as good. limit_w: [row]. fixed: whose target is kept exactly."""
        before = self.cap_w
        near = (np.abs(target_w - before) <= BAND * fleet.most_w) & ~fixed
        kept = np.where(near, before, target_w)
        watts, wanted = fleet.by_row(kept * counts), fleet.by_row(target_w * counts)
        off = (watts > limit_w) | (watts < (1.0 - UNUSED) * wanted)
        found: Floats = np.where(off[fleet.row], target_w, kept)
        return found

    def send(
        self, fleet: Fleet, wanted_w: Floats, held_w: Floats, limit_w: Floats, counts: Floats, now_s: float
    ) -> Floats:
        """The caps of now. held_w: what each may still draw. All of a row get the same share of the rise they want."""
        before = self.cap_w
        low = np.minimum(before, wanted_w)
        taken_w = np.maximum(held_w, low) * counts
        rise = np.maximum(wanted_w - np.maximum(held_w, low), 0.0) * counts
        free = np.maximum(limit_w - fleet.by_row(taken_w), 0.0)
        asked = fleet.by_row(rise)
        share = np.where(asked > free, free / np.maximum(asked, 1e-9), 1.0)[fleet.row]
        # Up to what it still holds itself a device may be raised freely: that is counted already.
        back = np.minimum(wanted_w, np.maximum(held_w, low))
        caps = np.where(counts > 0.0, back + np.floor(share * np.maximum(wanted_w - back, 0.0)), low)
        self.lowered_s = np.where(caps < before, now_s, self.lowered_s)
        self.high_w = np.maximum(self.high_w, np.maximum(before, caps))
        self.cap_w = caps
        return caps
