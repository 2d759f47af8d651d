"""Whether the cell can take one more request now, by the queue manager's last status: 429 when a class is full,
503 when nobody serves the model. The core refuses exactly what slips through between two statuses.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from headrace.core.errors import Overloaded, Unavailable

STALE_S = 5.0  # statuses come every 0.25 s: after this the queue manager is between two leaderships
SETTLE_S = 1.2  # two heartbeats and a margin, as for adoption: by then a leadership has heard every worker that lives
RETRY_S_MIN, RETRY_S_MAX = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class ClassLoad:
    queued: int
    limit: int
    oldest_wait_s: float


@dataclass(frozen=True, slots=True)
class Cell:
    """The last CellStatus, as far as admission looks at it."""

    heard_s: float
    classes: Mapping[str, ClassLoad] = field(default_factory=dict)
    modalities: Mapping[str, frozenset[str]] = field(default_factory=dict)  # of each servable model
    epoch: int = 0
    led_s: float = float("-inf")  # when this leadership took over from one that this gateway had heard


def led_since_s(last: Cell | None, epoch: int, now_s: float) -> float:
    """Since when the leadership of this epoch leads, going by the last status. For ever, to a gateway that has just
    started: it cannot tell, and a cell without workers is not to be filled."""
    if last is None:
        return float("-inf")
    return last.led_s if last.epoch == epoch else now_s


def admit(
    cell: Cell | None,
    now_s: float,
    model: str,
    slo_class: str,
    modalities: Collection[str],
    open_here: Callable[[], int],
) -> None:
    """open_here: this gateway's own open requests of the class, the only count there is while statuses are missing.

    Raises:
        Overloaded, Unavailable: with a time after which trying again makes sense.
    """
    if cell is None:
        raise Unavailable("no queue manager has been heard yet", retry_after_s=RETRY_S_MIN)
    stale = now_s - cell.heard_s > STALE_S
    settling = now_s - cell.led_s < SETTLE_S  # whom it has not heard yet may well live, and what is journaled waits
    if not stale and not settling:
        _servable(cell, model, modalities)
    load = cell.classes.get(slo_class)
    if load is None or not load.limit:
        return
    if (open_here() if stale else load.queued) >= load.limit:
        retry_s = min(max(load.oldest_wait_s, RETRY_S_MIN), RETRY_S_MAX)
        raise Overloaded(f"the queue of class {slo_class!r} is full ({load.limit} requests)", retry_after_s=retry_s)


def _servable(cell: Cell, model: str, modalities: Collection[str]) -> None:
    served = cell.modalities.get(model)
    if served is None:
        raise Unavailable(f"no workers serve {model!r} right now", field="model", retry_after_s=RETRY_S_MIN)
    missing = sorted(set(modalities) - served)
    if missing:
        raise Unavailable(f"no encoder for {', '.join(missing)} right now", retry_after_s=RETRY_S_MIN)
