"""What this gateway has seen of its own requests lately: times to the first token by class, and the latest of them."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.core.slo import Classes
from services.gateway.live import Live

WINDOW_S = 60.0
ANSWERED_MAX = 2_000  # of a class, in the window: 33 a second; beyond it the window is shorter
ENDED_MAX = 200


@dataclass(frozen=True, slots=True)
class ClassFigures:
    answered: int = 0  # first tokens in the window
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    kept: float | None = None  # share of them in time


@dataclass(frozen=True, slots=True)
class Row:
    """One request, as a list shows it."""

    id: str
    slo_class: str
    model: str
    tenant: str
    at_s: float  # Unix time at which it came
    tokens: int
    ttft_s: float | None
    took_s: float | None
    reason: str  # empty: it has not ended
    joules: float


@dataclass(slots=True)
class _Answered:
    """Of one class: when, after how long, whether in time."""

    rows: deque[tuple[float, float, bool]] = field(default_factory=lambda: deque(maxlen=ANSWERED_MAX))


class Tally:
    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._answered: dict[str, _Answered] = {name: _Answered() for name in classes.named}
        self._ended: OrderedDict[str, Row] = OrderedDict()  # newest last

    def on_first_token(self, live: Live, now_s: float) -> None:
        slo = self._classes.named.get(live.facts.slo_class)
        if slo is not None:
            ttft_s = now_s - live.opened_s
            self._answered[slo.name].rows.append((now_s, ttft_s, ttft_s <= (live.facts.ttft_s or slo.ttft_s)))

    def on_end(self, live: Live, now_s: float) -> None:
        if live.received_s:  # else another gateway received it, and tells of it
            self._ended[live.facts.id] = row_of(live)
            if len(self._ended) > ENDED_MAX:
                self._ended.popitem(last=False)

    def ended(self, request_id: str) -> Row | None:
        return self._ended.get(request_id)

    def of_class(self, name: str, now_s: float) -> ClassFigures:
        return _figures(self._since(name, now_s - WINDOW_S))

    def of_all(self, now_s: float, window_s: float) -> ClassFigures:
        return _figures([row for name in self._answered for row in self._since(name, now_s - window_s)])

    def _since(self, name: str, from_s: float) -> list[tuple[float, float, bool]]:
        answered = self._answered.get(name)
        return [row for row in answered.rows if row[0] >= from_s] if answered is not None else []

    def latest(self, running: Sequence[Live], count: int) -> list[Row]:
        """Those that run, newest first, then those that have ended."""
        half = count // 2
        rows = [row_of(live) for live in running[:half] if live.received_s]
        return [*rows, *[row for _, row in zip(range(count - len(rows)), reversed(self._ended.values()), strict=False)]]


def _figures(rows: Sequence[tuple[float, float, bool]]) -> ClassFigures:
    if not rows:
        return ClassFigures()
    times = sorted([ttft_s for _, ttft_s, _ in rows])
    return ClassFigures(
        len(rows), _quantile(times, 0.5), _quantile(times, 0.99), sum([kept for _, _, kept in rows]) / len(rows)
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row_of(live: Live) -> Row:
    end = live.end
    first_s = live.first_token_s
    return Row(
        id=live.facts.id,
        slo_class=live.facts.slo_class,
        model=live.facts.model,
        tenant=live.facts.tenant,
        at_s=live.received_s,
        tokens=len(live.stream.tokens),
        ttft_s=first_s - live.opened_s if first_s is not None else None,
        took_s=live.ended_s - live.opened_s if end is not None and live.ended_s else None,
        reason=end.reason if end is not None else "",
        joules=end.usage.joules if end is not None else 0.0,
    )
