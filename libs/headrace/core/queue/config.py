"""What a leadership of the queue manager is told at its start. Seconds; every limit says where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.core.slo import CLASSES, SloClass

ATTEMPTS_PER_EPOCH = 4096  # attempt = epoch * 4096 + n: monotonic over leaderships with nothing stored


@dataclass(frozen=True, slots=True)
class QueueConfig:
    epoch: int  # the leadership's: sequence of its take-over
    name: str = "qm-0"
    order: str = "fcfs"
    predict_lengths: bool = False  # ask for each request (PredictLength); an answer may come late, or never
    classes: Mapping[str, SloClass] = field(default_factory=lambda: CLASSES)
    prefix_tokens: Mapping[str, int] = field(default_factory=dict)  # prefix name -> its length, for KV accounting
    lease_s: float = 2.0  # four heartbeats of 0.5 s: a dead worker is noticed within 3 s
    tick_gap_s: float = 1.0  # four ticks: a longer gap means that we ourselves were stopped
    adopt_s: float = 1.2  # two heartbeats and a margin: every live worker has said what it holds
    resend_s: float = 1.0  # two heartbeats: a command that is not listed by then was lost
    resends_max: int = 3  # then the worker is deaf to this request: another attempt
    deadline_grace_s: float = 0.2  # a worker keeps deadlines itself; we step in later, and free within 1 s
    stop_wait_s: float = 0.5  # how long a cancelled worker may take to say Ended before it is left alone
    recover_retry_s: float = 5.0  # ten times the shell's own time-out: its answer was lost
    exonerated_after: int = 8  # new tokens that prove a request harmless
    deaths_suspect: int = 2  # one death has many causes; who was there at two in a row is suspected
    deaths_alone_max: int = 3
    stage_failures_max: int = 8  # retryable failures of one request; deaths do not count
    encoder_window_tokens: int = 65_536  # pending and kept media tokens per encoder: 150 MB at width 576 in float32
    handover_s: float = 3.0  # six heartbeats without the decode worker's word: the join was lost
    handover_bytes_per_s: float = 50e6  # and as long as its KV cache takes over half of a 1 Gbit/s link
    results_age_s: float = 600.0  # how long RESULTS keeps an end
    ended_max: int = 65_536  # remembered ends: 40 s at 1,600 requests/s, far above any repeat's delay
