"""Autoscaling: how many instances each pool should have. One file per policy, one line in the registry."""

from collections.abc import Callable, Mapping

from headrace.core.scaling.base import Scaler
from headrace.core.scaling.forecast import Forecast
from headrace.core.scaling.published import Published

SETTLE_S = 120.0  # [I] that a lower need must last before a pool shrinks; less where the epoch is a test's

# Each is told the epoch, in seconds: the span of the long window.
SCALERS: Mapping[str, Callable[[float], Scaler]] = {
    "published": lambda epoch_s: Published(epoch_s=epoch_s),
    "headrace": lambda epoch_s: Forecast(settle_s=min(SETTLE_S, 4.0 / 3.0 * epoch_s)),
}

__all__ = ["SCALERS", "Scaler"]
