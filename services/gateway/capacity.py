"""Whether the cell can take one more request now, by the queue manager's last status: 429 when a class is full or the
request could not begin in time, 503 when nobody serves the model. The core refuses exactly what slips through between
two statuses.

In time means before its deadline, and within what its class promises: a line that is longer serves everybody late, and
as many. What is refused is told when to come back, one after the other.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from headrace.core.errors import Overloaded, TooLate, Unavailable
from headrace.v1 import queue_pb2
from services.gateway.served import ANSWERED, Served

STALE_S = 5.0  # statuses come every 0.25 s: after this the queue manager is between two leaderships
SETTLE_S = 1.2  # two heartbeats and a margin, as for adoption: by then a leadership has heard every worker that lives
# A client that is told more than a minute gives up (the OpenAI SDK then waits as it likes, a few seconds).
RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0
# Standard deviations above the expected wait within which nine of ten begin; statuses tell the mean and -2.33.
LIKELY, TOLD = 1.28, 2.33


@dataclass(frozen=True, slots=True)
class ClassLoad:
    queued: int
    limit: int
    oldest_wait_s: float
    estimated_wait_s: float = -1.0  # of a request that came now, until its first token; negative: no estimate
    least_wait_s: float = -1.0
    encoding: int = 0  # of the queued: they stand before encoders, where a text does not
    models: Mapping[str, "ClassLoad"] = field(default_factory=dict)  # each one's part, where there are several

    def of(self, model: str) -> "ClassLoad":
        return self.models.get(model, self)

    def before(self, *, media: bool) -> int:
        """How many of the queued stand where such a request will."""
        return self.queued if media else self.queued - self.encoding

    @property
    def likely_wait_s(self) -> float:
        """Nine of ten wait no longer; negative: no estimate."""
        mean_s = self.estimated_wait_s
        return mean_s + (mean_s - self.least_wait_s) * LIKELY / TOLD if self.least_wait_s >= 0.0 else mean_s


@dataclass(frozen=True, slots=True)
class Cell:
    """The last CellStatus, as far as admission looks at it."""

    heard_s: float
    classes: Mapping[str, ClassLoad] = field(default_factory=dict)
    # Of each servable model: what an encoder can encode, or could if the autoscaler started one.
    modalities: Mapping[str, frozenset[str]] = field(default_factory=dict)
    epoch: int = 0
    led_s: float = float("-inf")  # when this leadership took over from one that this gateway had heard
    served: Served = field(default_factory=Served)
    # By this gateway since this status, by class, model and whether they have media.
    let_in: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    def let_in_before(self, bid: "Bid") -> int:
        """How many of those stand where such a request will: pictures that have just come are still at encoders."""
        at_encoders = self.let_in[bid.slo_class, bid.model, True] if bid.modalities else 0
        return self.let_in[bid.slo_class, bid.model, False] + at_encoders

    def let_in_of(self, slo_class: str) -> int:
        return sum([count for (name, _, _), count in self.let_in.items() if name == slo_class])


@dataclass(frozen=True, slots=True)
class Bid:
    """A request at the door, as far as the cell's state matters to it."""

    model: str
    slo_class: str
    modalities: Collection[str] = ()
    time_left_s: float = float("inf")  # until its deadline; inf: it is let in however long the queue is
    patience_s: float = float("inf")  # that its first token may be expected to take at most; inf: the same
    count: int = 1  # requests that come together: all or none


def cell_of(status: queue_pb2.CellStatus, last: Cell | None, now_s: float) -> Cell:
    classes = {told.slo_class: _load_of(told) for told in status.classes}
    return Cell(
        now_s,
        classes,
        {model.model: frozenset((*model.modalities, *model.startable)) for model in status.models if model.servable},
        status.epoch,
        led_since_s(last, status.epoch, now_s),
        _served(last, status, classes, now_s),
    )


def _load_of(told: queue_pb2.ClassStatus) -> ClassLoad:
    parts = {part.model: _part_of(part, told) for part in told.models}
    return replace(_part_of(told, told), models=parts)


def _part_of(part: queue_pb2.ClassStatus | queue_pb2.ClassOfModel, told: queue_pb2.ClassStatus) -> ClassLoad:
    """Of the class, or of one of its models."""
    return ClassLoad(
        part.queued,
        told.queue_limit,
        told.oldest_wait_s,
        part.estimated_wait_s,
        part.estimated_wait_least_s,
        part.encoding,
    )


def _served(last: Cell | None, status: queue_pb2.CellStatus, classes: Mapping[str, ClassLoad], now_s: float) -> Served:
    total = sum(status.ended_by_reason[reason] for reason in ANSWERED if reason in status.ended_by_reason)
    if last is None or last.epoch != status.epoch:
        return Served(total)
    waited = all(any(load.queued for load in told.values()) for told in (last.classes, classes))
    return last.served.then(total, now_s - last.heard_s, waited)


def led_since_s(last: Cell | None, epoch: int, now_s: float) -> float:
    """Since when the leadership of this epoch leads, going by the last status. For ever, to a gateway that has just
    started: it cannot tell, and a cell without workers is not to be filled."""
    if last is None:
        return float("-inf")
    return last.led_s if last.epoch == epoch else now_s


def _never() -> bool:
    return False


def admit(
    cell: Cell | None, now_s: float, bid: Bid, open_here: Callable[[], int], modest: Callable[[], bool] = _never
) -> float:
    """The seconds that its first token is expected to take; 0 where nothing is known, or nobody waits.

    open_here: this gateway's own open requests of the class, the only count there is while statuses are missing.
    modest: whether its tenant has far less than its share of them; it will be served before the others.

    Raises:
        Overloaded, TooLate, Unavailable: with a time after which trying again makes sense.
    """
    if cell is None:
        raise Unavailable("no queue manager has been heard yet", retry_after_s=RETRY_S_MIN)
    stale = now_s - cell.heard_s > STALE_S
    settling = now_s - cell.led_s < SETTLE_S  # whom it has not heard yet may well live, and what is journaled waits
    known = not stale and not settling
    if known:
        _servable(cell, bid.model, bid.modalities)
    load = cell.classes.get(bid.slo_class)
    if load is None or not load.limit:
        return 0.0
    of_model = load.of(bid.model)
    if (open_here() if stale else load.queued + cell.let_in_of(bid.slo_class)) + bid.count > load.limit:
        wait_s = load.estimated_wait_s if load.estimated_wait_s >= 0.0 else load.oldest_wait_s
        message = f"the queue of class {bid.slo_class!r} is full ({load.limit} requests)"
        raise Overloaded(message, retry_after_s=_retry_s(wait_s))
    if known and 0.0 <= bid.time_left_s < of_model.least_wait_s:
        message = (
            f"requests of class {bid.slo_class!r} now wait at least {of_model.least_wait_s:.1f} s;"
            f" this one has {bid.time_left_s:.1f} s until its deadline"
        )
        raise TooLate(message, retry_after_s=_retry_s(of_model.least_wait_s - bid.time_left_s))
    before = of_model.before(media=bool(bid.modalities))
    wait_s = _wait_now_s(cell, of_model, before, bid) if known and before else 0.0  # an empty queue gets no shorter
    if wait_s > bid.patience_s and not modest():
        message = f"requests of class {bid.slo_class!r} now wait about {wait_s:.1f} s for their first token"
        raise Overloaded(message, retry_after_s=_retry_s(wait_s - bid.patience_s))
    cell.let_in[bid.slo_class, bid.model, bool(bid.modalities)] += bid.count
    return wait_s


def _wait_now_s(cell: Cell, load: ClassLoad, before: int, bid: Bid) -> float:
    """As the engines' pace has it, or by the rate of answers where that says longer; and behind those who were let in
    since the status."""
    each_s = cell.served.each_s
    return max(load.likely_wait_s, before * each_s) + cell.let_in_before(bid) * each_s


def leave_room(cell: Cell | None, bid: Bid, open_here: Callable[[], int]) -> None:
    """Where tenants have keys, one of them fills half of a class's queue at most: the rest is the others'.

    open_here: this gateway's own open requests of the class and the tenant; counted only once the queue is half full.

    Raises:
        Overloaded.
    """
    load = cell.classes.get(bid.slo_class) if cell is not None else None
    if load is None or not load.limit or load.queued * 2 < load.limit:
        return
    if open_here() * 2 >= load.limit:
        message = f"this tenant's requests fill half of the queue of class {bid.slo_class!r} ({load.limit} requests)"
        raise Overloaded(message, retry_after_s=_retry_s(load.oldest_wait_s))


def _retry_s(wait_s: float) -> float:
    return min(max(wait_s, RETRY_S_MIN), RETRY_S_MAX)


def _servable(cell: Cell, model: str, modalities: Collection[str]) -> None:
    served = cell.modalities.get(model)
    if served is None:
        raise Unavailable(f"no workers serve {model!r} right now", field="model", retry_after_s=RETRY_S_MIN)
    missing = sorted(set(modalities) - served)
    if missing:
        raise Unavailable(f"no encoder for {', '.join(missing)} right now", retry_after_s=RETRY_S_MIN)
