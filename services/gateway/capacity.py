"""Whether the cell can take one more request now, by the queue manager's last status: 429 when a class is full or the
request could not begin in time, 503 when nobody serves the model. The core refuses exactly what slips through between
two statuses.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from headrace.core.errors import Overloaded, TooLate, Unavailable
from headrace.v1 import queue_pb2

STALE_S = 5.0  # statuses come every 0.25 s: after this the queue manager is between two leaderships
SETTLE_S = 1.2  # two heartbeats and a margin, as for adoption: by then a leadership has heard every worker that lives
# A client that is told more than a minute gives up (the OpenAI SDK then waits as it likes, a few seconds).
RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class ClassLoad:
    queued: int
    limit: int
    oldest_wait_s: float
    estimated_wait_s: float = -1.0  # of a request that came now, until its first token; negative: no estimate
    least_wait_s: float = -1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """The last CellStatus, as far as admission looks at it."""

    heard_s: float
    classes: Mapping[str, ClassLoad] = field(default_factory=dict)
    # Of each servable model: what an encoder can encode, or could if the autoscaler started one.
    modalities: Mapping[str, frozenset[str]] = field(default_factory=dict)
    epoch: int = 0
    led_s: float = float("-inf")  # when this leadership took over from one that this gateway had heard


@dataclass(frozen=True, slots=True)
class Bid:
    """A request at the door, as far as the cell's state matters to it."""

    model: str
    slo_class: str
    modalities: Collection[str] = ()
    time_left_s: float = float("inf")  # until its deadline; inf: it is let in however long the queue is
    count: int = 1  # requests that come together: all or none


def cell_of(status: queue_pb2.CellStatus, last: Cell | None, now_s: float) -> Cell:
    return Cell(
        now_s,
        {told.slo_class: _load_of(told) for told in status.classes},
        {model.model: frozenset((*model.modalities, *model.startable)) for model in status.models if model.servable},
        status.epoch,
        led_since_s(last, status.epoch, now_s),
    )


def _load_of(told: queue_pb2.ClassStatus) -> ClassLoad:
    return ClassLoad(
        told.queued, told.queue_limit, told.oldest_wait_s, told.estimated_wait_s, told.estimated_wait_least_s
    )


def led_since_s(last: Cell | None, epoch: int, now_s: float) -> float:
    """Since when the leadership of this epoch leads, going by the last status. For ever, to a gateway that has just
    started: it cannot tell, and a cell without workers is not to be filled."""
    if last is None:
        return float("-inf")
    return last.led_s if last.epoch == epoch else now_s


def admit(cell: Cell | None, now_s: float, bid: Bid, open_here: Callable[[], int]) -> None:
    """open_here: this gateway's own open requests of the class, the only count there is while statuses are missing.

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
        return
    if (open_here() if stale else load.queued) + bid.count > load.limit:
        wait_s = load.estimated_wait_s if load.estimated_wait_s >= 0.0 else load.oldest_wait_s
        message = f"the queue of class {bid.slo_class!r} is full ({load.limit} requests)"
        raise Overloaded(message, retry_after_s=_retry_s(wait_s))
    if known and 0.0 <= bid.time_left_s < load.least_wait_s:
        message = (
            f"requests of class {bid.slo_class!r} now wait at least {load.least_wait_s:.1f} s;"
            f" this one has {bid.time_left_s:.1f} s until its deadline"
        )
        raise TooLate(message, retry_after_s=_retry_s(load.least_wait_s - bid.time_left_s))


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
