"""What an engine iteration costs, as a function of what is in it: tokens -> seconds.

Pure: the profile engine sleeps for it, the simulator advances its clock by it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one iteration computes."""

    prefill_tokens: int = 0
    prefill_pairs: int = 0  # sum over prefilled tokens of the positions they attend to: the quadratic part
    decode_sequences: int = 0
    decode_context_tokens: int = 0  # KV positions read by the decoding sequences


@dataclass(frozen=True, slots=True)
class StepCost:
    """A linear model of an iteration. A fixed cost is the weights' trip through the memory: both stages share it."""

    prefill_fixed_s: float = 0.0
    prefill_token_s: float = 0.0
    prefill_pair_s: float = 0.0
    decode_fixed_s: float = 0.0
    decode_sequence_s: float = 0.0
    decode_context_token_s: float = 0.0

    def __post_init__(self) -> None:
        assert min(self.prefill_fixed_s, self.prefill_token_s, self.prefill_pair_s) >= 0
        assert min(self.decode_fixed_s, self.decode_sequence_s, self.decode_context_token_s) >= 0

    def step_s(self, work: StepWork) -> float:
        """Seconds of one iteration; one without work costs nothing."""
        fixed_s = max(
            self.prefill_fixed_s if work.prefill_tokens else 0.0,
            self.decode_fixed_s if work.decode_sequences else 0.0,
        )
        prefill_s = work.prefill_tokens * self.prefill_token_s + work.prefill_pairs * self.prefill_pair_s
        decode_s = (
            work.decode_sequences * self.decode_sequence_s + work.decode_context_tokens * self.decode_context_token_s
        )
        return fixed_s + prefill_s + decode_s
