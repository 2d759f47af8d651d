"""When a dead process may start again: at once the first time, then later and later.

Pure: the supervisor asks with the time of its clock.
"""

from dataclasses import dataclass, field

_FIRST_S = 0.2
_MAX_S = 5.0  # a process that cannot live is tried twelve times a minute, no more
_HEALTHY_S = 30.0  # one that lived this long starts its count anew


@dataclass(slots=True)
class Restarts:
    _count: dict[str, int] = field(default_factory=dict)
    _last_s: dict[str, float] = field(default_factory=dict)

    def due(self, name: str, now_s: float) -> bool:
        since_s = now_s - self._last_s.get(name, float("-inf"))
        if since_s > _HEALTHY_S:
            self._count[name] = 0
        return since_s >= self.pause_s(name)

    def pause_s(self, name: str) -> float:
        count = self._count.get(name, 0)
        return 0.0 if count == 0 else min(_MAX_S, _FIRST_S * 2.0 ** (count - 1))

    def started(self, name: str, now_s: float) -> None:
        self._count[name] = self._count.get(name, 0) + 1
        self._last_s[name] = now_s
