"""Which speeds a worker had while it measured itself: their mean over time, so that no cap is taken for its own pace.

While it computes, work at full speed grows by speed x time: the mean over time is what the time it took is worth.
"""

from headrace.core.governing import FULL, Speeds


class HeldSpeeds:
    __slots__ = ("_changed_s", "_decode_s", "_now", "_prefill_s", "_since_s")

    def __init__(self, now_s: float, speeds: Speeds = FULL) -> None:
        self._now = speeds
        self.begin(now_s)

    def begin(self, now_s: float) -> None:
        """Another measurement begins."""
        self._since_s = self._changed_s = now_s
        self._prefill_s = self._decode_s = 0.0

    def change(self, speeds: Speeds, now_s: float) -> None:
        past_s = max(0.0, now_s - self._changed_s)
        self._prefill_s += past_s * self._now.prefill
        self._decode_s += past_s * self._now.decode
        self._changed_s = max(now_s, self._changed_s)
        self._now = speeds

    def mean(self, now_s: float) -> Speeds:
        """Since it began."""
        if self._since_s == self._changed_s or now_s <= self._since_s:
            return self._now
        past_s, whole_s = max(0.0, now_s - self._changed_s), max(now_s, self._changed_s) - self._since_s
        return Speeds(
            (self._prefill_s + past_s * self._now.prefill) / whole_s,
            (self._decode_s + past_s * self._now.decode) / whole_s,
            self._now.encode,
        )
