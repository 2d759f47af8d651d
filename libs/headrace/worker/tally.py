"""What a worker has done: the counters of its telemetry, since its start, and of its model, since that was loaded."""

from collections import deque
from dataclasses import dataclass, field

from headrace.core.instance import Done, Encoded, Pace
from headrace.engines.base import StepResult
from headrace.worker.measured import Step, pace_of_steps

STEPS_KEPT = 512  # what a model's pace is fitted to: its last half minute or so


@dataclass(slots=True)
class Tally:
    prefill_tokens: int = 0
    decode_tokens: int = 0
    encoded_parts: int = 0
    encoder_cache_hits: int = 0
    encoder_cache_misses: int = 0
    encoder_cache_bytes: int = 0  # kept now
    prefill_busy_s: float = 0.0
    decode_busy_s: float = 0.0
    iterations: int = 0
    evictions: int = 0
    encoded: Encoded = field(default_factory=Encoded)  # replaced as a whole, as `done`
    # Of the loaded model; replaced as a whole, so that another thread reads one moment.
    done: Done = field(default_factory=Done)
    _steps: deque[Step] = field(default_factory=lambda: deque(maxlen=STEPS_KEPT))

    def step(self, result: StepResult, prefill_s: float, decode_s: float) -> None:
        """The two parts of its time."""
        took_s = prefill_s + decode_s
        self.iterations += 1
        self.prefill_tokens += result.prefill_tokens
        self.decode_tokens += result.decode_tokens
        self.prefill_busy_s += prefill_s
        self.decode_busy_s += decode_s
        done = self.done
        self.done = Done(
            done.busy_s + took_s,
            done.iterations + 1,
            done.prefill_tokens + result.prefill_tokens,
            done.decode_tokens + result.decode_tokens,
        )
        self._steps.append((result.decode_tokens, result.prefill_tokens, took_s))

    def encode(self, tokens: int, took_s: float) -> None:
        self.encoded = Encoded(self.encoded.busy_s + took_s, self.encoded.tokens + tokens)

    def pace(self) -> Pace:
        """Of the loaded model, measured. Between two iterations."""
        return pace_of_steps(self._steps)

    def loaded(self) -> None:
        """Another model is served from now on."""
        self.done = Done()
        self._steps.clear()
