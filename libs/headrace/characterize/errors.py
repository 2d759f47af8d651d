"""What can be wrong with a mesh that is to be characterised."""


class LiveError(ValueError):
    """Says why there is nothing to measure, and what to do."""
