"""What an autoscaler is told, and what it decides. Gateways know of requests, workers of their pace, the queue's views
of what is there and waits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headrace.core.queue.views import CellView, WorkerView
from headrace.core.scaling.base import ClassWait, Costs
from headrace.core.slo import SloClass


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request was admitted."""

    model: str
    prompt_tokens: int  # positions, those of media in the sequence among them
    media: tuple[tuple[str, int], ...] = ()  # modality and tokens of each part


@dataclass(frozen=True, slots=True)
class Answered:
    """Its first token came, or the time for it is over."""

    in_time: bool


@dataclass(frozen=True, slots=True)
class Ended:
    model: str
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Started:
    """An instance that was ordered serves."""

    pool: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Paced:
    """How fast the instances of a pool really are."""

    pool: str
    costs: Costs
    full: Costs | None = None  # at full speed, where a governor slows them down


@dataclass(frozen=True, slots=True)
class Count:
    """Instances of a pool."""

    ready: int = 0
    starting: int = 0
    draining: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """Time for a decision; the queue as it is now."""

    pools: Mapping[str, Count]
    waits: tuple[ClassWait, ...] = ()
    at_encoders: int = 0  # requests whose media are not encoded yet
    waiting: Mapping[str, int] | None = None  # model -> requests that wait for an LLM


Event = Arrived | Answered | Ended | Started | Paced | Look


@dataclass(frozen=True, slots=True)
class Scale:
    """A pool is to have so many instances: ready and starting ones."""

    pool: str
    current: int
    instances: int
    reason: str


def look(
    view: CellView,
    classes: Mapping[str, SloClass],
    pool_of: Callable[[WorkerView], str],
    starting: Mapping[str, int],
) -> Look:
    """From what the queue manager shows. starting: what was ordered and has not been heard yet."""
    ready: dict[str, int] = {}
    draining: dict[str, int] = {}
    for worker in view.workers:
        where = draining if worker.draining else ready
        where[pool_of(worker)] = where.get(pool_of(worker), 0) + 1
    waits = [ClassWait(each.slo_class, classes[each.slo_class].ttft_s, each.estimated_wait_s) for each in view.classes]
    waiting = {model.model: model.waiting or 0 for model in view.models}
    names = {*ready, *draining, *starting}
    return Look(
        pools={name: Count(ready.get(name, 0), starting.get(name, 0), draining.get(name, 0)) for name in names},
        waits=tuple(waits),
        at_encoders=max(0, sum([each.queued for each in view.classes]) - sum(waiting.values())),
        waiting=waiting,
    )
