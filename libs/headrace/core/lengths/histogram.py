"""Lengths learnt from requests that ended, by model, SLO class and modalities; what is old counts less.

Answers that were cut off count for the lengths beyond: redistribution to the right (Efron, 1967).
"""

import math
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass, field

from headrace.core.lengths.constant import CHAT
from headrace.core.lengths.features import Features
from headrace.core.lengths.prediction import LEVELS, MOST_TOKENS, Prediction

_PER_OCTAVE = 4  # a bin is a fifth wide: finer than any prediction
# Upper edges in tokens: 1, 1.19, 1.41 ... 2^20.
EDGES = tuple(2 ** (i / _PER_OCTAVE) for i in range(_PER_OCTAVE * (MOST_TOKENS.bit_length() - 1) + 1))
_CAPS_MAX = 64  # different max_tokens that a key's prediction is kept for
_NOBODY = ("", "", "")  # whoever is like nobody before
_RENORMALISE = 1e9  # a new answer's weight grows instead of all old ones' shrinking


class Bins:
    """Weights of the lengths in (EDGES[i - 1], EDGES[i]], fading with every answer added."""

    __slots__ = ("_fade", "_unit", "_weights")

    def __init__(self, prior: Prediction, prior_answers: float, memory_answers: float) -> None:
        shares = [1.0 - prior.exceeds(edge) for edge in EDGES]
        self._weights = [prior_answers * (b - a) for a, b in zip([0.0, *shares], shares, strict=False)]
        self._fade = 1.0 - 1.0 / memory_answers
        self._unit = 1.0

    def add(self, tokens: int, *, stopped: bool) -> None:
        self._unit /= self._fade
        place = bisect_left(EDGES, min(max(tokens, 1), MOST_TOKENS))
        beyond = 0.0 if stopped else sum(self._weights[place + 1 :])
        if beyond > 0.0:
            for i in range(place + 1, len(EDGES)):
                self._weights[i] *= 1.0 + self._unit / beyond
        else:
            self._weights[place] += self._unit
        if self._unit > _RENORMALISE:
            self._weights = [weight / self._unit for weight in self._weights]
            self._unit = 1.0

    def prediction(self) -> Prediction:
        return Prediction.of([self._quantile(level) for level in LEVELS])

    def _quantile(self, level: float) -> float:
        left = level * sum(self._weights)
        for i, weight in enumerate(self._weights):
            if left <= weight and weight > 0.0:
                lower = EDGES[i - 1] if i else EDGES[0]
                return float(lower * (EDGES[i] / lower) ** (left / weight))
            left -= weight
        return EDGES[-1]


@dataclass(slots=True)
class Histogram:
    """At most `keys_max` distributions are kept; the one asked for longest ago is forgotten first."""

    prior: Prediction = CHAT
    prior_answers: float = 4.0  # the prior weighs as many answers
    memory_answers: float = 1_000.0  # an answer has lost 1 - 1/e of its weight after as many others
    keys_max: int = 1_024
    name: str = "histogram"
    _bins: OrderedDict[tuple[str, str, str], Bins] = field(default_factory=OrderedDict)
    _ready: dict[tuple[str, str, str], tuple[Prediction, dict[int, Prediction]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory_answers <= 1 or self.prior_answers <= 0 or self.keys_max < 1:
            raise ValueError("memory_answers must be above 1, prior_answers above 0 and keys_max at least 1")
        assert math.isfinite(self.memory_answers)

    def predict(self, request_id: str, features: Features) -> Prediction:
        key = _key(features)
        if key in self._bins:
            self._bins.move_to_end(key)
        else:
            key = _NOBODY
        ready = self._ready.get(key)
        if ready is None:
            ready = self._ready[key] = self._bins[key].prediction() if key in self._bins else self.prior, {}
        whole, capped = ready
        if features.max_tokens not in capped:
            if len(capped) >= _CAPS_MAX:
                capped.clear()
            capped[features.max_tokens] = whole.capped(features.max_tokens)
        return capped[features.max_tokens]

    def learn(self, features: Features, output_tokens: int, *, stopped: bool) -> None:
        key = _key(features)
        if key not in self._bins:
            self._bins[key] = Bins(self.prior, self.prior_answers, self.memory_answers)
            if len(self._bins) > self.keys_max:
                forgotten, _ = self._bins.popitem(last=False)
                self._ready.pop(forgotten, None)
        self._bins.move_to_end(key)
        self._bins[key].add(output_tokens, stopped=stopped)
        self._ready.pop(key, None)


def _key(features: Features) -> tuple[str, str, str]:
    return features.model, features.slo_class, features.kind
