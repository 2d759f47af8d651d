"""How much of what arrives are retries: client libraries come back by themselves, and in an overload that is more load.

Beyond a share of the first tries the refused are told not to come back by themselves (x-should-retry, gRPC's pushback);
Retry-After still says when it would make sense.
"""

from dataclasses import dataclass
from math import exp

SHARE = 0.2  # retries for each first try: so much more may clients add by themselves, as proxies' budgets have it
FREE = 10.0  # retries in OVER_S that are always allowed: a few callers retry without harm
OVER_S = 10.0  # time constant of both counts


@dataclass(slots=True)
class Retries:
    _firsts: float = 0.0
    _agains: float = 0.0
    _at_s: float = 0.0

    def arrived(self, again: bool, now_s: float) -> None:
        kept = exp(-max(0.0, now_s - self._at_s) / OVER_S)
        self._firsts, self._agains, self._at_s = kept * self._firsts, kept * self._agains, now_s
        if again:
            self._agains += 1.0
        else:
            self._firsts += 1.0

    @property
    def spent(self) -> bool:
        return self._agains > FREE + SHARE * self._firsts
