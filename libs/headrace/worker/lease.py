"""Whether others still count on this worker, as far as it can tell itself.

A process that was stopped and goes on does not know what was given to others meanwhile. Until heartbeats have told
and releases have come back it writes nothing into Redis: what it wrote for a request that is over would stay there.
"""

SILENCE_MAX_S = 1.5  # of two seconds; longer without a heartbeat, and others may have taken over
SETTLE_S = 1.0  # a heartbeat there and the releases back take milliseconds


class Lease:
    def __init__(self, now_s: float) -> None:
        self._beat_s = now_s
        self._settled_s = now_s

    def renew(self, now_s: float) -> None:
        """A heartbeat goes out."""
        if now_s - self._beat_s > SILENCE_MAX_S:
            self._settled_s = now_s + SETTLE_S
        self._beat_s = now_s

    def holds(self, now_s: float) -> bool:
        return now_s - self._beat_s <= SILENCE_MAX_S and now_s >= self._settled_s
