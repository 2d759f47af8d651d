"""Budget policies in the allocator's place: what each device may draw at most before the row's limit is looked at.

A ceiling is a wish. The row's limit is kept behind it, by the same steps as ever, whatever a policy says.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.core.power.decision import Entry
from headrace.core.power.fleet import Fleet, Floats, Mask
from headrace.core.power.sharing import Ladder


@dataclass(frozen=True, slots=True)
class Ruled:
    """One moment of the rows that have a limit; arrays are over devices, watts of one GPU."""

    fleet: Fleet
    bound: Mask  # in such a row and there; whose readings are not believed, too: they come back
    wants_w: Floats  # of an opaque tenant what it wants, of others what they may have if nothing limits them
    need: Floats  # share of full speed with which each does its work
    row_w: Floats  # [row]; infinite: no limit
    unix_s: float

    @property
    def capped(self) -> Mask:
        """Of them those that can have caps."""
        found: Mask = self.bound & self.fleet.cappable
        return found

    def left_w(self, ours: Mask) -> Floats:
        """[row]: of its limit, when all others in it have what they want."""
        others = self.fleet.by_row(np.where(self.bound & ~ours, self.wants_w, 0.0))
        found: Floats = np.maximum(self.row_w - others, 0.0)
        return found


class Splitter(Protocol):
    def ceilings(self, ruled: Ruled, ladder: Ladder) -> Floats:
        """Watts of every device; infinite: it is not the policy's to say. ladder: who gives way how, within a share."""
        ...

    def told(self) -> list[Entry]:
        """For the audit log, once: what has changed in how shares are found, and why."""
        ...


class EqualSplit:
    """Every device the same share of its own limit; opaque tenants have what they want."""

    def ceilings(self, ruled: Ruled, ladder: Ladder) -> Floats:
        return equally(ruled, ruled.capped & ~ruled.fleet.opaque)

    def told(self) -> list[Entry]:
        return []


def equally(ruled: Ruled, ours: Mask) -> Floats:
    """Ceilings of the devices `ours`."""
    fleet = ruled.fleet
    whole = fleet.by_row(np.where(ours, fleet.most_w, 0.0))
    with np.errstate(invalid="ignore"):
        share = np.where(whole > 0.0, ruled.left_w(ours) / np.maximum(whole, 1e-9), np.inf)[fleet.row]
        found: Floats = np.where(ours, share * fleet.most_w, np.inf)
    return found
