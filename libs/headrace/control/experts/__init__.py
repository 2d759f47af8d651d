"""Who shows how it is done: one file an expert, one line here. Each is solved once and begun anew for every run."""

from collections.abc import Callable
from typing import Protocol

from headrace.control.experts.hinf import HInfinity
from headrace.control.experts.lqg import Lqg
from headrace.control.experts.mpc import Mpc
from headrace.control.experts.none import Nothing
from headrace.control.experts.pid import Pid
from headrace.control.experts.thermal import Thermal
from headrace.control.tasks import Controller, LinearTask, Task

__all__ = ["EXPERTS", "THERMAL", "Expert", "expert"]


class Expert(Protocol):
    def begin(self, envs: int) -> Controller: ...


# With the task's own model; who wants a wrong one makes a Lqg of it.
EXPERTS: dict[str, Callable[[LinearTask], Expert]] = {
    "none": lambda task: Nothing(task.actions),
    "lqg": lambda task: Lqg(task, task.model),
    "hinf": HInfinity,
    "mpc": Mpc,
    "pid": Pid,
}
THERMAL = ("none", "kalman", "lqg", "mpc", "pid")  # of control/thermal


def expert(name: str, task: Task) -> Expert:
    return EXPERTS[name](task) if isinstance(task, LinearTask) else Thermal(name)
