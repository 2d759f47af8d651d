"""Many small linear regressions at once, learnt online: one for each server or GPU.

Sums of products are kept, not samples, and fade with a half life. Each sample is predicted before it is learnt: that
error, from samples not seen yet, says whether a fit may be trusted (a prequential hold-out; A. P. Dawid, 1984).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Regressions:
    """y = x . coefficients, for each device; x has the devices' shape and one axis of features."""

    def __init__(
        self, shape: tuple[int, ...], features: int, *, half_life: float, warm: int, ridge: float = 1e-6
    ) -> None:
        """half_life: samples after which one counts half. warm: samples before errors count, and anything is trusted.
        ridge: relative, keeps what has never moved at 0."""
        self._keep = 0.5 ** (1.0 / half_life)
        self._warm = warm
        self._ridge = ridge
        self._xx = np.zeros((*shape, features, features))
        self._xy = np.zeros((*shape, features))
        self._seen = np.zeros(shape)
        self._error = np.zeros(shape)  # faded sums of absolute errors, and how many
        self._errors = np.zeros(shape)
        self.coefficients: Floats = np.zeros((*shape, features))
        self._solved = False

    def learn(self, x: Floats, y: Floats, valid: Mask | None = None) -> None:
        """valid: of which devices the sample may be believed."""
        weight = np.ones(y.shape) if valid is None else valid.astype(np.float64)
        clean_y, clean_x = np.where(weight > 0, y, 0.0), np.where(weight[..., None] > 0, x, 0.0)
        if self._solved:
            told = weight * (self._seen >= self._warm)
            self._error = self._keep * self._error + told * np.abs(self.predict(clean_x) - clean_y)
            self._errors = self._keep * self._errors + told
        weighed = clean_x * weight[..., None]
        self._xx = self._keep * self._xx + weighed[..., :, None] * clean_x[..., None, :]
        self._xy = self._keep * self._xy + weighed * clean_y[..., None]
        self._seen += weight

    def solve(self) -> None:
        """Coefficients anew: as often as somebody wants them, not with each sample."""
        size = np.trace(self._xx, axis1=-2, axis2=-1)[..., None, None]
        xx = self._xx + self._ridge * np.maximum(size, 1e-12) * np.eye(self._xx.shape[-1])
        self.coefficients = np.linalg.solve(xx, self._xy[..., None])[..., 0]
        self._solved = True

    def predict(self, x: Floats) -> Floats:
        found: Floats = np.einsum("...k,...k->...", x, self.coefficients)
        return found

    @property
    def mean_error(self) -> Floats:
        """Absolute, of each device's predictions lately; inf where there were none."""
        found: Floats = np.where(self._errors > 0, self._error / np.maximum(self._errors, 1e-12), np.inf)
        return found

    def trusted(self, error_most: float) -> Mask:
        found: Mask = self.mean_error <= error_most
        return found
