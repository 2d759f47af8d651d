"""Control tasks, one line each: five that are trained on beside the thermal plant, others that are not."""

from collections.abc import Callable
from functools import lru_cache, partial

from headrace.control.tasks import complib, fields
from headrace.control.tasks.base import Stepped, Task, World
from headrace.control.tasks.fields import Convection, Wave
from headrace.control.tasks.linear import LinearTask, Model
from headrace.control.tasks.play import Controller, Episodes, play
from headrace.control.tasks.thermal import ThermalTask

__all__ = [
    "RELATIVES",
    "TASKS",
    "Controller",
    "Episodes",
    "LinearTask",
    "Model",
    "Stepped",
    "Task",
    "World",
    "play",
    "relative",
    "task",
]

CONVECTION = "convection_diffusion_reaction"

# Ranges of actions and limits of outputs: twice the largest that the unlimited LQG of the task's own model took and
# saw in 200 episodes, seeds 90,001 on; rounded. The plants themselves have none.
TASKS: dict[str, Callable[[], Task]] = {
    "he1": partial(complib.task, "he1", 1.8, 2.5),
    "ac3": partial(complib.task, "ac3", 0.48, 6.9),
    "cm1": partial(complib.task, "cm1", 2.3, 2.8),
    CONVECTION: partial(fields.convection, CONVECTION, Convection(), 1.2, 2.2),
    "wave": partial(fields.wave, "wave", Wave(), 0.62, 1.2),
    "thermal": ThermalTask,
}
# Of each of them one that nobody is trained on: another plant of its family, or the same with other constants.
RELATIVES: dict[str, Callable[[], Task]] = {
    "he1": partial(complib.task, "he4", 4.5, 2.0),
    "ac3": partial(complib.task, "ac10", 19.0, 2.1e5),
    "cm1": partial(complib.task, "cm2", 2.1, 2.1),
    CONVECTION: partial(fields.convection, f"{CONVECTION}_changed", Convection(velocity=0.15, reaction=0.15), 1.3, 2.2),
    "wave": partial(fields.wave, "wave_changed", Wave(speed=0.13), 0.62, 1.2),
    "thermal": partial(ThermalTask, "thermal_worse", resistances=(1.35, 1.6)),
}


@lru_cache
def task(name: str) -> Task:
    return TASKS[name]()


@lru_cache
def relative(name: str) -> Task:
    return RELATIVES[name]()
