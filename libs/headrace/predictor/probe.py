"""The second stage: a small net on the language model's own last hidden state after prefill, which has seen the prompt
and its images; its word is mixed with the proxy's.

After TRAIL (Shahout et al., 2025), which reads the length from the model's embeddings. The probe belongs to one model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.lengths import LEVELS, Prediction

PROBE_FILE = "probe.npz"

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Probe:
    mean: Array  # [width] of the states that it was trained on
    deviation: Array  # [width]
    into: Array  # [members, width, hidden]
    into_bias: Array  # [members, 1, hidden]
    out: Array  # [members, hidden, LEVELS]
    out_bias: Array  # [members, 1, LEVELS]
    share: float  # of the probe in the mix, 0 .. 1
    offsets: Array  # [LEVELS], added to the mix

    @staticmethod
    def load(path: Path) -> "Probe":
        with np.load(path) as arrays:
            return Probe.of({name: arrays[name] for name in arrays.files})

    @staticmethod
    def of(arrays: Mapping[str, NDArray[Any]]) -> "Probe":
        single = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        share = float(single.pop("share"))
        return Probe(share=share, **single)

    def alone(self, states: NDArray[Any]) -> Array:
        """Log quantiles [n, LEVELS] from the states [n, width], before mixing."""
        scaled = np.clip((states.astype(np.float32) - self.mean) / self.deviation, -5.0, 5.0)
        hidden = np.maximum(scaled @ self.into + self.into_bias, 0.0)  # [members, n, hidden]
        return np.asarray((hidden @ self.out + self.out_bias).mean(0))

    def mixed(self, states: NDArray[Any], proxy: Array) -> Array:
        """Log quantiles [n, LEVELS] of both: proxy [n, LEVELS] are its log quantiles, uncapped."""
        mix = self.share * self.alone(states) + (1.0 - self.share) * proxy + self.offsets
        return np.asarray(np.maximum.accumulate(mix, axis=1))

    def refined(self, prediction: Prediction, state: NDArray[Any]) -> Prediction:
        """A prediction for one request whose prefill has ended; state [width]."""
        proxy = np.log(np.array([prediction.values], np.float32))
        assert proxy.shape == (1, len(LEVELS))
        return Prediction.of(np.exp(self.mixed(state[None], proxy)[0]).tolist(), prediction.most)


def states_of(logits: NDArray[np.float32], head: NDArray[np.float32]) -> NDArray[np.float16]:
    """The hidden states [n, width] that the head [vocab, width] made the logits [n, vocab] of.

    By its pseudo-inverse, which is exact because a head has far more rows than columns; an engine that hands out the
    state itself saves these 2 x vocab x width operations.
    """
    gram = (head.T @ head).astype(np.float64)
    return np.asarray(np.linalg.solve(gram, (logits @ head).T.astype(np.float64)).T, np.float16)
