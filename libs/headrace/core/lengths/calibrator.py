"""Corrects a predictor's quantiles while it serves, model by model, so that a 90 % bound covers 90 % of the answers.

Each level has an offset that follows its own misses: adaptive conformal inference (Gibbs and Candes, 2021, equation 2)
on the logarithm of the length, with a step that shrinks to `step`.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from headrace.core.lengths.prediction import LEVELS, Prediction

# Nobody's answers are a hundred times as long as predicted for long: what asks for more is a broken feature.
_OFFSET_MOST = math.log(100)


@dataclass(slots=True)
class _Offsets:
    values: list[float] = field(default_factory=lambda: [0.0] * len(LEVELS))
    seen: list[int] = field(default_factory=lambda: [0] * len(LEVELS))


@dataclass(slots=True)
class Calibrator:
    step: float = 0.02  # natural logarithm of the length, once settled: a miss of the 90 % bound moves it by 1.8 %
    first_step: float = 0.3  # of the first answer; falls with the square root of their number
    models_max: int = 256  # the one unheard of for longest is forgotten
    _offsets: OrderedDict[str, _Offsets] = field(default_factory=OrderedDict)

    def calibrated(self, model: str, raw: Prediction) -> Prediction:
        """The prediction to give out, capped as the raw one is."""
        offsets = self._offsets.get(model)
        if offsets is None:
            return raw
        assert raw.emitted == 0, "a prediction is calibrated before anything is emitted"
        self._offsets.move_to_end(model)
        moved = [value * math.exp(offset) for value, offset in zip(raw.values, offsets.values, strict=True)]
        return Prediction.of(moved, raw.most)

    def learn(self, model: str, given: Prediction, output_tokens: int, *, stopped: bool) -> None:
        """A request ended; `given` is the prediction that was given out for it. Not stopped: it was cut off.

        Of a cut-off answer only the bounds that it had passed are known to have failed; bounds at the cap itself say
        nothing.
        """
        offsets = self._offsets.setdefault(model, _Offsets())
        self._offsets.move_to_end(model)
        if len(self._offsets) > self.models_max:
            self._offsets.popitem(last=False)
        for i, (level, bound) in enumerate(zip(LEVELS, given.values, strict=True)):
            missed = output_tokens > bound
            if not missed and (not stopped or bound >= given.most):
                continue
            offsets.seen[i] += 1
            step = max(self.step, self.first_step / math.sqrt(offsets.seen[i]))
            moved = offsets.values[i] + step * (level if missed else level - 1)
            offsets.values[i] = min(max(moved, -_OFFSET_MOST), _OFFSET_MOST)
