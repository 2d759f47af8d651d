"""A worker as the queue manager sees it, and its books: slots, KV blocks and media tokens that its jobs take.

The books are ours alone: capacity comes from the worker's first heartbeat, use from what we sent it.
"""

from headrace.core.events import Heartbeat
from headrace.core.governing import WEIGHT_LEAST, Governance
from headrace.core.instance import Done, Loadable, Pace
from headrace.core.queue.job import Job, Part
from headrace.core.stages.kv import blocks_for
from headrace.core.stages.roles import DECODE_SHARE, NEW_S, Role
from headrace.core.waiting.held import HeldSpeeds
from headrace.core.waiting.pace import PaceLearner
from headrace.core.waiting.work import NOTHING

NEVER_S = float("-inf")


class Seat:
    """What one job takes at one worker."""

    __slots__ = ("adopted", "blocks", "host_bytes", "job", "kv_tokens", "slots")

    def __init__(self, job: Job, kv_tokens: int, blocks: int, adopted: bool) -> None:
        self.job = job
        self.kv_tokens = kv_tokens  # 0: it has left the engine, and only its KV cache or its tokens are kept
        self.slots = 1 if kv_tokens else 0
        self.blocks = blocks
        self.host_bytes = 0  # of its evicted KV cache
        self.adopted = adopted  # given by an earlier leadership: not ours to refuse


class Worker:
    __slots__ = (
        "alone",
        "block_tokens",
        "blocks",
        "blocks_used",
        "decode_share",
        "decodes",
        "draining",
        "encode_speed",
        "encodes",
        "evicting",
        "extra_slots",
        "governance",
        "grpc_address",
        "held_speeds",
        "hinge",
        "host",
        "host_bytes",
        "host_used",
        "id",
        "incarnation",
        "kv_bytes_per_token",
        "lag_s",
        "last_seen_s",
        "lease_until_s",
        "load_sent_s",
        "loadable",
        "loaded_s",
        "loading",
        "made_room",
        "media_held",
        "media_pending",
        "modalities",
        "model",
        "overlaps",
        "pace",
        "parts",
        "prefill_pending",
        "prefill_share",
        "prefills",
        "risky",
        "role",
        "role_s",
        "running",
        "running_s",
        "seats",
        "sent_s",
        "slots",
        "slots_usable",
        "slots_used",
        "spared",
        "stages",
        "unloadable",
        "written_s",
    )

    def __init__(self, worker_id: str, now_s: float) -> None:
        self.id = worker_id
        self.incarnation = ""  # "": named by a hold elsewhere, not heard of yet
        self.stages: tuple[str, ...] = ()
        self.encodes = self.prefills = self.decodes = False  # what it is sent
        self.role: Role = "both"
        self.role_s = NEW_S  # since when
        self.hinge = False  # prompts and sequences come to it that others have begun, or go on with
        self.model = ""
        self.modalities: tuple[str, ...] = ()
        self.overlaps = False  # its prefill may begin on a request's first media parts
        self.host = ""
        self.grpc_address = ""
        self.slots = self.blocks = 0
        self.slots_usable = 0  # that the governor leaves
        self.governance = Governance(worker_id)
        self.held_speeds = HeldSpeeds(now_s)
        self.risky = False  # it is spared while others can serve in time
        # Speed x weight: what loads are divided by where the emptiest is looked for.
        self.prefill_share = self.decode_share = self.encode_speed = 1.0
        self.block_tokens = 1
        self.extra_slots = 0  # that it is sent beyond what it has: it queues them itself
        self.draining = False
        self.loadable: dict[str, Loadable] = {}  # by model
        self.unloadable: set[str] = set()  # models that it has failed to load
        self.loading = ""  # the model that it was told to load, or says that it loads
        self.load_sent_s = 0.0
        self.loaded_s = now_s  # since when it has its model
        self.pace = PaceLearner()  # at full speed
        self.kv_bytes_per_token = 0
        self.host_bytes = 0  # for evicted KV caches
        self.host_used = 0
        self.running = NOTHING  # what its requests have left, as it was estimated at running_s
        self.running_s = NEVER_S
        self.spared = (0, NEVER_S, False)  # of which group that was last asked, when, and whether
        self.made_room = (0, NEVER_S)  # for which group that was last looked into, and when
        self.evicting: dict[str, Job] = {}  # asked to leave the engine
        self.lease_until_s = now_s
        self.last_seen_s = now_s
        self.sent_s = 0.0  # by its own clock: tells old heartbeats from new ones
        self.lag_s: float | None = None  # its heartbeats' usual time under way, and what our clocks differ by
        self.written_s = now_s  # its last heartbeat, by our clock
        self.alone = ""  # the job that has this worker to itself, or is about to
        self.seats: dict[str, Seat] = {}  # by request id
        self.slots_used = 0
        self.blocks_used = 0
        self.prefill_pending = 0  # prompt tokens sent and not yet prefilled
        self.parts: dict[tuple[str, int], tuple[Job, Part]] = {}  # by request id and part
        self.media_pending = 0
        self.media_held = 0

    def introduce(self, heartbeat: Heartbeat) -> None:
        """Take over what does not change within an incarnation."""
        self.incarnation = heartbeat.incarnation
        self.stages = heartbeat.stages
        self.encodes = "encode" in heartbeat.stages
        self.take_role("both", NEW_S)
        self.model = heartbeat.model
        self.modalities = heartbeat.modalities
        self.overlaps = heartbeat.overlaps
        self.host = heartbeat.host
        self.grpc_address = heartbeat.grpc_address
        self.slots = heartbeat.slots
        self.slots_usable = self.governance.usable(self.slots)
        self.blocks = heartbeat.blocks
        self.block_tokens = heartbeat.block_tokens
        self.kv_bytes_per_token = heartbeat.kv_bytes_per_token
        self.host_bytes = heartbeat.host_bytes
        self.pace = PaceLearner(heartbeat.pace)
        for seat in self.seats.values():  # given before the worker was heard of
            seat.blocks = blocks_for(seat.kv_tokens, self.block_tokens)
        self.blocks_used = sum(seat.blocks for seat in self.seats.values())

    def govern(self, governance: Governance, now_s: float) -> bool:
        """Whether anything is new."""
        if governance == self.governance:
            return False
        self.governance = governance
        self.slots_usable = governance.usable(self.slots)
        speeds, weight = governance.speeds, max(governance.weight, WEIGHT_LEAST)
        self.risky = governance.risky
        self.prefill_share, self.decode_share = speeds.prefill * weight, speeds.decode * weight
        self.encode_speed = speeds.encode * weight
        self.held_speeds.change(governance.speeds, now_s)
        return True

    def measure(self, done: Done) -> None:
        """A heartbeat's counters, put down to the speeds that held while they grew."""
        if self.pace.observe(done, self.held_speeds.mean(self.written_s)):
            self.held_speeds.begin(self.written_s)

    @property
    def pace_now(self) -> Pace:
        """At the speeds that the governor says."""
        return self.governance.speeds.slowed(self.pace.pace)

    def take_role(self, role: Role, now_s: float, *, hinge: bool = False) -> None:
        """What is sent to it from now on, of the stages that it has. hinge: it does both among workers that do one."""
        self.role, self.role_s, self.hinge = role, now_s, hinge
        self.prefills = "prefill" in self.stages and role != "decode"
        self.decodes = "decode" in self.stages and role != "prefill"

    @property
    def whole(self) -> bool:
        """What begins here stays here: it decodes what it prefills."""
        return self.decodes and not self.hinge

    @property
    def flexible(self) -> bool:
        """Whether its role may change."""
        both = "prefill" in self.stages and "decode" in self.stages
        return both and self.host_bytes > 0 and not self.loadable

    @property
    def idle(self) -> bool:
        """Computes for nobody. Embeddings that it merely keeps do not count."""
        return not self.seats and not self.media_pending

    @property
    def decoding(self) -> int:
        """Sequences that decode here, or will: also beside a role that sends it no more of them."""
        return sum([seat.slots for seat in self.seats.values() if seat.job.decode == self.id])

    @property
    def instance(self) -> bool:
        """Whether a virtual queue ends here: requests begin at it."""
        return self.prefills

    @property
    def model_to_be(self) -> str:
        return self.loading or self.model

    def can_serve(self, model: str) -> bool:
        """Now, or after a load. Only who prefills and decodes by itself may change its model."""
        if model == self.model_to_be:
            return True
        return self.prefills and self.decodes and model in self.loadable and model not in self.unloadable

    def fits(self, kv_tokens: int) -> bool:
        if self.extra_slots:
            return self.slots_used < self.slots_usable + self.extra_slots
        # blocks_for in place: asked of every worker at every dispatch
        return (
            self.slots_used < self.slots_usable and self.blocks_used - (-kv_tokens // self.block_tokens) <= self.blocks
        )

    def fits_beside(self, kv_tokens: int) -> bool:
        """To decode at a worker that does both among others: what is left of its room is for prompts to enter."""
        if not self.hinge or not self.slots_used:
            return self.fits(kv_tokens)
        blocks_used = self.blocks_used - (-kv_tokens // self.block_tokens)
        return (
            self.slots_used < min(DECODE_SHARE * self.slots_usable, self.slots_usable - 1)
            and blocks_used <= DECODE_SHARE * self.blocks
        )

    def could_fit(self, kv_tokens: int) -> bool:
        """When nobody else is here."""
        return self.slots_usable > 0 and blocks_for(kv_tokens, self.block_tokens) <= self.blocks

    # --- books ---

    def seat(self, job: Job, kv_tokens: int, *, adopted: bool = False) -> None:
        """Give the job a slot and blocks for kv_tokens; none for 0."""
        assert job.request.id not in self.seats, f"{job.key} sits at {self.id} already"
        assert adopted or self.fits(kv_tokens), f"{job.key} does not fit {self.id}"
        seat = self.seats[job.request.id] = Seat(job, kv_tokens, blocks_for(kv_tokens, self.block_tokens), adopted)
        self.slots_used += seat.slots
        self.blocks_used += seat.blocks

    def lighten(self, job: Job, host_bytes: int = 0) -> None:
        """The job has left the engine; its KV cache waits in a file, which takes host_bytes if it was evicted."""
        seat = self.seats[job.request.id]
        self.slots_used -= seat.slots
        self.blocks_used -= seat.blocks
        seat.kv_tokens = seat.slots = seat.blocks = 0
        self.host_used += host_bytes - seat.host_bytes
        seat.host_bytes = host_bytes
        self.evicting.pop(job.request.id, None)

    def unseat(self, job: Job) -> None:
        seat = self.seats.pop(job.request.id)
        self.slots_used -= seat.slots
        self.blocks_used -= seat.blocks
        self.host_used -= seat.host_bytes
        self.evicting.pop(job.request.id, None)

    def place(self, job: Job, part: Part) -> None:
        """Book a part that is sent here, or that is already kept here (handle set)."""
        assert not part.worker, f"part {part.index} of {job.key} is at {part.worker} already"
        part.worker = self.id
        self.parts[job.request.id, part.index] = (job, part)
        self._count(part, 1)

    def encoded(self, part: Part) -> None:
        """The part's handle has just been set."""
        self.media_pending -= part.tokens
        self.media_held += part.tokens

    def displace(self, job: Job, part: Part) -> None:
        """The part is not here any more."""
        del self.parts[job.request.id, part.index]
        self._count(part, -1)
        part.worker, part.handle, part.resends = "", None, 0

    def _count(self, part: Part, sign: int) -> None:
        if part.handle is None:
            self.media_pending += sign * part.tokens
        else:
            self.media_held += sign * part.tokens

    def check(self) -> None:
        """Reserved equals the sum over the seats, and never more than there is but by inheritance."""
        seats = self.seats.values()
        assert self.slots_used == sum(seat.slots for seat in seats), self.id
        assert self.blocks_used == sum(seat.blocks for seat in seats), self.id
        assert self.host_used == sum(seat.host_bytes for seat in seats), self.id
        assert self.evicting.keys() <= self.seats.keys(), self.id
        inherited = self.extra_slots > 0 or any(seat.adopted for seat in seats)
        assert inherited or self.slots_used <= self.slots, f"{self.id}: {self.slots_used} of {self.slots} slots"
        assert inherited or self.blocks_used <= self.blocks, f"{self.id}: {self.blocks_used} of {self.blocks} blocks"
        parts = [part for _, part in self.parts.values()]
        assert self.media_pending == sum(part.tokens for part in parts if part.handle is None), self.id
        assert self.media_held == sum(part.tokens for part in parts if part.handle is not None), self.id
        assert all(part.worker == self.id for part in parts), self.id
        assert self.prefill_pending >= 0, self.id
