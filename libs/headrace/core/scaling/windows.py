"""What came lately: amounts over any of the last seconds, and means of the last values.

Sums in buckets, so that memory is bounded by the span and not by the requests.
"""

import math
from collections import deque

from headrace.core.scaling.base import Load

BUCKET_S = 5.0  # [I] a sixth of the short window


class Window:
    """Amounts that came in the last `span_s`, to `bucket_s`."""

    def __init__(self, span_s: float, since_s: float, bucket_s: float = BUCKET_S) -> None:
        self._since_s = since_s
        self._bucket_s = bucket_s
        self._buckets: deque[list[float]] = deque(maxlen=math.ceil(span_s / bucket_s) + 1)

    def add(self, amount: float, now_s: float) -> None:
        number = now_s // self._bucket_s
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append([number, 0.0, 0.0, 0.0])
        bucket = self._buckets[-1]
        bucket[1] += amount
        bucket[2] += amount * amount
        bucket[3] += 1.0

    def over(self, span_s: float, now_s: float, until_s: float = 0.0) -> Load:
        """The rate over the last seconds, or over those since the beginning; until_s: ... that were over so long ago.

        Its standard deviation is a compound Poisson process's: the root of the sum of squares, over the time.
        """
        bucket_s = self._bucket_s
        first, last = (math.ceil((now_s - ago_s) / bucket_s) for ago_s in (span_s + until_s, until_s))
        end_s = now_s if not until_s else last * bucket_s
        elapsed_s = max(bucket_s, end_s - max(first * bucket_s, self._since_s))
        amount = squares = requests = 0.0
        for number, each, its_squares, count in reversed(self._buckets):
            if number < first:
                break
            if not until_s or number < last:
                amount, squares, requests = amount + each, squares + its_squares, requests + count
        return Load(amount / elapsed_s, math.sqrt(squares) / elapsed_s, int(requests))


class Mean:
    """Of the last so many values: an exponential mean that begins as a plain one."""

    def __init__(self, usual: float, memory: int) -> None:
        self.value = usual
        self._memory = memory
        self._seen = 0

    def add(self, value: float) -> None:
        self._seen = min(self._seen + 1, self._memory)
        self.value += (value - self.value) / self._seen
