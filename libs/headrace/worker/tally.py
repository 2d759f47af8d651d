"""What a worker has done since its start: the counters of its telemetry."""

from dataclasses import dataclass

from headrace.engines.base import StepResult


@dataclass(slots=True)
class Tally:
    prefill_tokens: int = 0
    decode_tokens: int = 0
    encoded_parts: int = 0
    prefill_busy_s: float = 0.0
    decode_busy_s: float = 0.0
    encode_busy_s: float = 0.0
    iterations: int = 0

    def step(self, result: StepResult, took_s: float) -> None:
        """A mixed iteration's time is shared out by tokens."""
        tokens = result.prefill_tokens + result.decode_tokens
        if not tokens:
            return
        prefill_s = took_s * result.prefill_tokens / tokens
        self.iterations += 1
        self.prefill_tokens += result.prefill_tokens
        self.decode_tokens += result.decode_tokens
        self.prefill_busy_s += prefill_s
        self.decode_busy_s += took_s - prefill_s
