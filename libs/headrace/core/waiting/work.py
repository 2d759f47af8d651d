"""Work that waits or runs, in sums: all that the estimator reads of many requests, kept by addition and subtraction."""

from typing import NamedTuple

from headrace.core.lengths.prediction import Prediction

# Below this many requests a difference is rounding: nothing is left.
_NOBODY = 1e-9


class Work(NamedTuple):
    """Sums over requests. A request that takes the room of several usual ones counts as so many, output included:
    slots taken times tokens is what a line is served by.

    Tokens are those to come: of a running request what is left of its output, and of its prompt.
    """

    count: float = 0.0  # type: ignore[assignment]  # requests of usual size; nobody counts a tuple's elements
    output_mean: float = 0.0  # tokens
    output_var: float = 0.0  # tokens squared: how uncertain each one's length is
    output_sq: float = 0.0  # tokens squared: the mean squares, each mean^2 + var
    prompt_tokens: float = 0.0  # to prefill

    @staticmethod
    def of(output_mean: float, output_var: float, prompt_tokens: float, slots: float = 1.0) -> "Work":
        """One request. slots: how many of usual size would find room in its place."""
        square = output_mean * output_mean + output_var
        return Work(slots, slots * output_mean, slots * slots * output_var, slots * square, prompt_tokens)

    @staticmethod
    def predicted(length: Prediction, prompt_tokens: float, slots: float = 1.0) -> "Work":
        mean, variance = length.moments
        return Work.of(mean, variance, prompt_tokens, slots)

    def __add__(self, other: "Work") -> "Work":  # type: ignore[override]  # sums, not a longer tuple
        return Work(
            self.count + other.count,
            self.output_mean + other.output_mean,
            self.output_var + other.output_var,
            self.output_sq + other.output_sq,
            self.prompt_tokens + other.prompt_tokens,
        )

    def __sub__(self, other: "Work") -> "Work":
        """What was added before leaves again; rounding never leaves less than nothing."""
        count = self.count - other.count
        if count <= _NOBODY:
            return NOTHING
        return Work(
            count,
            max(0.0, self.output_mean - other.output_mean),
            max(0.0, self.output_var - other.output_var),
            max(0.0, self.output_sq - other.output_sq),
            max(0.0, self.prompt_tokens - other.prompt_tokens),
        )

    def times(self, share: float) -> "Work":
        """As many requests more or less of the same kind: share 0.5 is half of them."""
        return Work(
            self.count * share,
            self.output_mean * share,
            self.output_var * share,
            self.output_sq * share,
            self.prompt_tokens * share,
        )


NOTHING = Work()
