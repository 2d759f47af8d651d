"""The thermal controllers of control/thermal on the thermal task: asked every second, their last word holds for three.

They start from the kind's own constants, whatever the plant's are.
"""

from headrace.control.constants import H100
from headrace.control.tasks.base import Floats
from headrace.control.tasks.thermal import SECONDS, SENSORS
from headrace.control.thermal import CONTROLLERS, Observed, ThermalController


class Thermal:
    def __init__(self, name: str) -> None:
        self._make = CONTROLLERS[name]

    def begin(self, envs: int) -> "Asked":
        return Asked(self._make(H100, envs))


class Asked:
    def __init__(self, controller: ThermalController) -> None:
        self._controller = controller

    def act(self, seen: Floats) -> Floats:
        speed = seen[:, -1]
        for second in range(SECONDS):
            speed = self._controller.act(Observed(*seen[:, second * SENSORS : (second + 1) * SENSORS].T))
        return speed[:, None]

    def done(self, actions: Floats, costs: Floats) -> None:
        """The next observation tells the speed that was set."""
