"""From a running mesh to what the simulator needs: its engines' costs, the mesh's own seconds, the fleet's shape.

Everything is measured through the public API: questions, the times of their tokens, the timelines of their answers.
Timelines are compared across processes, so the services of the mesh and this client must share a clock: one host, or
clocks that agree to a fraction of a millisecond.
"""

from headrace.calibration.calibrate import Calibration, calibrate
from headrace.calibration.errors import CalibrationError, PoorFit
from headrace.calibration.probes import Plan
from headrace.calibration.shape import Limits, Shape, shape_of

__all__ = ["Calibration", "CalibrationError", "Limits", "Plan", "PoorFit", "Shape", "calibrate", "shape_of"]
