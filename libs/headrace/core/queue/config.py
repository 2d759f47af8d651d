"""What a leadership of the queue manager is told at its start. Seconds; every limit says where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from headrace.core.planning.heuristic import BUDGET
from headrace.core.slo import CLASSES, SloClass
from headrace.core.stages.routing import Routing

EncoderSharing = Literal["off", "tenant", "all"]
Roles = Literal["fixed", "elastic"]

ATTEMPTS_PER_EPOCH = 4096  # attempt = epoch * 4096 + n: monotonic over leaderships with nothing stored


@dataclass(frozen=True, slots=True)
class QueueConfig:
    epoch: int  # the leadership's: sequence of its take-over
    name: str = "qm-0"
    order: str = "fcfs"  # of each model's line; with a planner, of the lines before the encoders alone
    planner: str = ""  # of headrace.core.planning: groups in virtual queues; empty: a line for each model
    routing: Routing = "least-pending"  # to encoders, and without a planner to LLM workers; the others: to compare with
    together: bool = False  # a request is encoded where it is prefilled: all its parts go to one worker that does both
    solve: bool = True  # plan anew in a process of its own (SolvePlan); off: new groups are put in where they fit best
    pull: bool = True  # a worker gets what it has room for; off: it gets its requests at once and queues them itself
    evict: bool = True  # take running requests out, KV cache to host memory, for more urgent ones
    swap: bool = True  # let workers load other models
    balance: bool = True  # a worker with room serves groups of others' virtual queues
    move: bool = True  # evicted requests may go on at another worker
    roles: Roles = "fixed"  # elastic: workers that can do both prefill or decode, as the load asks (stages/roles.py)
    early_rejection: bool = True  # refuse at once what cannot begin before its deadline
    fair: bool = True  # among the requests of a group's kind, the tenant that was served least comes first
    predict_lengths: bool = False  # ask for each request (PredictLength); an answer may come late, or never
    classes: Mapping[str, SloClass] = field(default_factory=lambda: CLASSES)
    prefix_tokens: Mapping[str, int] = field(default_factory=dict)  # prefix name -> its length, for KV accounting
    group_batches: float = 4.0  # a group is closed at so many batches of its instances (QLM's delta)
    group_max: int = 512  # and at so many requests
    replan_s: float = 1.0  # between two plans asked for, at least
    plan_nodes: int = 200  # of the mixed-integer program
    plan_moves: int = BUDGET  # groups counted in the search's moves
    bound_z: float = 1.28  # standard deviations that count as waiting: nine promises of ten are kept
    unpulled_batches: int = 8  # that a worker is sent beyond what it has room for, without pull
    evictions_max: int = 4  # of one request
    evict_tokens_min: int = 16  # that a request must decode between two evictions, and must have left to be worth one
    evict_rest_s: float = 1.0  # that a request runs at least between two evictions
    share_half_life_s: float = 60.0  # what a tenant was served counts half as much after so long
    flows_max: int = 4_096  # tenants remembered; the one served longest ago is forgotten
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
    encoder_window_tokens: int = 65_536  # media tokens that an encoder is sent beyond what it has encoded
    # Pending and kept ones together: 150 MB at width 576 in float32. Where it is full of embeddings of what may wait,
    # an encoder rests while urgent pictures stand in line: more is better, as far as memory goes.
    encoder_memory_tokens: int = 65_536
    encoder_cache: EncoderSharing = "tenant"  # whose parts with the same content may share an embedding
    affinity_contents_max: int = 16_384  # whose encoder is remembered: more than encoders keep [I]; 11 MB [M]
    affinity_homes_max: int = 4  # encoders remembered for a content: one that many ask for spreads so far [I]
    # Times what would be pending at the least loaded encoder: so much longer a line outweighs what may be kept [I].
    affinity_factor: float = 4.0
    overlap: bool = True  # begin the prefill on a request's first media parts while others are still being encoded
    overlap_max: int = 8  # such requests at a prefill worker
    overlap_share: float = 0.5  # of a worker's slots and of its blocks; fuller ones keep their room for who is ready
    overlap_patience_s: float = 2.0  # without another part: then it makes room for who is ready
    handover_s: float = 3.0  # six heartbeats without the decode worker's word: the join was lost
    handover_bytes_per_s: float = 50e6  # and as long as its KV cache takes over half of a 1 Gbit/s link
    results_age_s: float = 600.0  # how long RESULTS keeps an end
    ended_max: int = 65_536  # remembered ends: 40 s at 1,600 requests/s, far above any repeat's delay
