"""What keeps a GPU cool: one file a controller, one line here."""

from collections.abc import Callable

from headrace.control.constants import GpuKind
from headrace.control.thermal.adaptive import Adaptive
from headrace.control.thermal.base import Observed, ThermalController
from headrace.control.thermal.hinf import HInfinity
from headrace.control.thermal.kalman_budget import KalmanBudget, QuickKalman
from headrace.control.thermal.lqg import Lqg
from headrace.control.thermal.mpc import Mpc
from headrace.control.thermal.none import Uncontrolled
from headrace.control.thermal.pid import Pid
from headrace.control.thermal.rule import Rule
from headrace.control.thermal.static import Static

__all__ = ["CONTROLLERS", "DEFAULT", "Observed", "ThermalController"]

DEFAULT = "kalman-quick"
CONTROLLERS: dict[str, Callable[[GpuKind, int], ThermalController]] = {
    "none": Uncontrolled,
    "static": Static,
    "rule": Rule,
    "pid": Pid,
    "kalman": KalmanBudget,
    "kalman-quick": QuickKalman,
    "adaptive": Adaptive,
    "lqg": Lqg,
    "hinf": HInfinity,
    "mpc": Mpc,
}
