"""Autoscaling: how many instances each pool should have. One file per policy, one line in the registry."""

from collections.abc import Callable, Mapping

from headrace.core.scaling.base import Scaler
from headrace.core.scaling.forecast import Forecast
from headrace.core.scaling.published import Published

# Each is told the epoch, in seconds: the span of the long window.
SCALERS: Mapping[str, Callable[[float], Scaler]] = {
    "published": lambda epoch_s: Published(epoch_s=epoch_s),
    "headrace": lambda epoch_s: Forecast(),
}

__all__ = ["SCALERS", "Scaler"]
