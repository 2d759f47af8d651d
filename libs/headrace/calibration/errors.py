"""What keeps a mesh from being calibrated, in words that say what to do about it."""


class CalibrationError(ValueError):
    """The mesh cannot be calibrated as it is."""


class PoorFit(CalibrationError):
    """What was fitted does not foresee what was left out of the fit: the machine is too restless, or the form wrong."""
