"""The planners by name; one line each."""

from headrace.core.planning.base import Planner
from headrace.core.planning.edf import Edf
from headrace.core.planning.fcfs import Fcfs
from headrace.core.planning.headrace import Headrace
from headrace.core.planning.shepherd import Shepherd

PLANNERS: dict[str, Planner] = {planner.name: planner for planner in (Headrace(), Fcfs(), Edf(), Shepherd())}
