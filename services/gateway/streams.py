"""All live requests of this gateway: who gets which token, what to ask when a stream falls silent, what to remember.

No I/O and no clock: messages and times come in, sweep() says what to send. One sweep serves every stream.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from headrace.core.errors import HeadraceError, Overloaded
from headrace.core.types import End, Logprobs
from services.gateway.live import LISTENERS_MAX, Facts, Listener, Live, moved_error

LIVE_MAX = 20_000  # twice the longest queue of a class: past that another gateway should take the load
SILENT_S = 1.0  # a stream with tokens flowing is asked for after this silence
ASK_EVERY_S = 0.5
GAP_ASK_S = 0.25  # a gap is known to be one: it is asked for before the stream has been silent for long
QUEUED_ASK_S_MAX = 4.0  # no token yet: it is probably queued, so the asking slows down to this
ASKS_PER_SWEEP_MAX = 2000  # one control message stays under 128 KiB
# A worker's death is noticed within 3 s and its successor leads after another 3: until then somebody may ask what
# the client has already seen.
REMEMBER_S = 30.0
REMEMBERED_MAX = 40_000
CANCEL_GIVEN_UP_S = 30.0  # nobody answers: the deadline will end it


@dataclass(slots=True)
class Repairs:
    """What one sweep wants said to the queue manager."""

    stalled: list[Live] = field(default_factory=list)
    cancel: list[Live] = field(default_factory=list)
    attach: list[Live] = field(default_factory=list)


def _ignore(_: Live, __: float) -> None:
    return


class Streams:
    def __init__(
        self,
        on_first_token: Callable[[Live, float], None],
        on_end: Callable[[Live, float], None],
        observe_gap_s: Callable[[Live, float], None] = _ignore,
    ) -> None:
        self._lives: dict[str, Live] = {}
        self._open: dict[str, Counter[str]] = {}  # class -> tenant -> requests, none of them 0
        self._ended: OrderedDict[str, Live] = OrderedDict()
        self._on_first_token = on_first_token
        self._on_end = on_end
        self._observe_gap_s = observe_gap_s

    def __len__(self) -> int:
        return len(self._lives)

    def get(self, request_id: str) -> Live | None:
        """Live, or ended a short while ago; what failed here is not here."""
        live = self._lives.get(request_id) or self._ended.get(request_id)
        return live if live is not None and live.failed is None else None

    def latest(self, count: int) -> list[Live]:
        """Of those that have not ended, newest first."""
        return list(islice(reversed(self._lives.values()), count))

    def listened(self) -> bool:
        return any(live.listeners for live in self._lives.values())

    def fail_all(self, error: HeadraceError) -> None:
        for live in self._lives.values():
            live.fail(error)

    def of_class(self, slo_class: str) -> int:
        return self._open[slo_class].total() if slo_class in self._open else 0

    def of_tenant(self, slo_class: str, tenant: str) -> int:
        return self._open[slo_class][tenant] if slo_class in self._open else 0

    def modest(self, slo_class: str, tenant: str) -> bool:
        """Whether the tenant has less than half of an equal share of the class's open requests."""
        tenants = self._open.get(slo_class, Counter())
        return 2 * len({*tenants, tenant}) * tenants[tenant] < tenants.total() and len({*tenants, tenant}) > 1

    # --- a request comes and goes ---

    def open(self, facts: Facts, now_s: float, adopting: bool = False) -> Live:
        """Raises Overloaded: this gateway holds as many streams as it may."""
        assert self.get(facts.id) is None
        if len(self._lives) >= LIVE_MAX:
            raise Overloaded(f"this gateway already has {LIVE_MAX} open streams", retry_after_s=1.0)
        live = Live(facts, now_s, heard_s=now_s, ask_s=now_s + SILENT_S, adopting=adopting)
        self._ended.pop(facts.id, None)
        self._lives[facts.id] = live
        self._open.setdefault(facts.slo_class, Counter())[facts.tenant] += 1
        return live

    def listen(self, live: Live, now_s: float, whole: bool = False) -> Listener:
        if len(live.listeners) >= LISTENERS_MAX:
            raise Overloaded(f"this request already has {LISTENERS_MAX} listeners", retry_after_s=1.0)
        listener = Listener(live, now_s, whole)
        live.listeners.append(listener)
        return listener

    def unlisten(self, listener: Listener) -> bool:
        """True: nobody listens any more and the request still runs."""
        live = listener.live
        live.listeners.remove(listener)
        listener.closed = True
        return not live.listeners and live.end is None and live.facts.id in self._lives

    def forget(self, live: Live) -> None:
        self._pop(live.facts.id)

    def _pop(self, request_id: str) -> Live | None:
        live = self._lives.pop(request_id, None)
        if live is not None:
            tenants = self._open[live.facts.slo_class]
            tenants[live.facts.tenant] -= 1
            if not tenants[live.facts.tenant]:
                del tenants[live.facts.tenant]
        return live

    def cancel(self, live: Live, now_s: float, deadline: bool = False) -> None:
        """From now on each sweep says so, until the end is heard."""
        live.cancel_s, live.deadline, live.ask_s = now_s, deadline, now_s + ASK_EVERY_S

    # --- what the bus brings ---

    def tokens(
        self, ids: Iterable[str], attempts: Iterable[int], indexes: Iterable[int], tokens: Iterable[int], now_s: float
    ) -> None:
        """One TokenBatch's columns. Listeners run only after this returns: they find all of it."""
        lives = self._lives
        for request_id, attempt, index, token in zip(ids, attempts, indexes, tokens, strict=True):
            live = lives.get(request_id)
            if live is None:
                continue
            if live.stream.accept(attempt, index, token):
                self._grown(live, now_s)
            elif live.stream.has_gap:
                live.ask_s = min(live.ask_s, now_s + GAP_ASK_S)

    def logprobs(self, ids: Sequence[str], attempts: Sequence[int], indexes: Sequence[int], told: Logprobs) -> None:
        """Of rows of the columns that tokens() gets next."""
        for row, one in told:
            live = self._lives.get(ids[row])
            if live is not None:
                live.stream.tell(attempts[row], indexes[row], one)

    def _grown(self, live: Live, now_s: float) -> None:
        if live.first_token_s is not None:
            self._observe_gap_s(live, now_s - live.heard_s)
        else:
            live.first_token_s = now_s
            self._on_first_token(live, now_s)
        self._heard(live, now_s)
        if live.stream.end is not None:
            self._close(live, now_s)
        live.wake()

    def end(self, request_id: str, attempt: int, count: int, end: End, now_s: float) -> None:
        live = self._lives.get(request_id)
        if live is None:
            return
        ended = live.stream.accept_end(attempt, count, end)
        self._heard(live, now_s)
        if ended:
            self._close(live, now_s)
            live.wake()

    def settle(self, live: Live, tokens: Sequence[int], end: End, now_s: float, logprobs: Logprobs = ()) -> None:
        """RESULTS has it: the request is over, whatever was missed."""
        if live.stream.settle(tokens, end, logprobs):
            self._close(live, now_s)
            live.wake()

    def moved(self, request_id: str) -> None:
        live = self._pop(request_id)
        if live is not None:
            live.fail(moved_error())

    def lost(self, live: Live, error: HeadraceError) -> None:
        self.forget(live)
        live.fail(error)

    def fence(self, request_id: str, attempt: int) -> Live | None:
        """Only this attempt or a newer one is accepted from now on; what the client may have seen already."""
        live = self.get(request_id)
        if live is not None:
            live.stream.fence(attempt)
        return live

    # --- repair ---

    def sweep(self, now_s: float) -> Repairs:
        repairs = Repairs()
        due = (live for live in self._lives.values() if live.ask_s <= now_s)
        for live in list(islice(due, ASKS_PER_SWEEP_MAX)):
            self._ask(live, now_s, repairs)
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if now_s - oldest.ended_s < REMEMBER_S and len(self._ended) <= REMEMBERED_MAX:
                break
            self._ended.popitem(last=False)
        return repairs

    def _ask(self, live: Live, now_s: float, repairs: Repairs) -> None:
        if live.cancel_s is not None and now_s - live.cancel_s > CANCEL_GIVEN_UP_S and not live.listeners:
            self.forget(live)
            return
        quiet_s = now_s - live.heard_s
        cancelling = live.cancel_s is not None
        if cancelling:
            repairs.cancel.append(live)
        if live.adopting:
            repairs.attach.append(live)
        elif quiet_s >= SILENT_S or live.stream.has_gap:
            repairs.stalled.append(live)
        else:
            live.ask_s = now_s + (ASK_EVERY_S if cancelling else SILENT_S - quiet_s)
            return
        live.asked += 1
        queued = live.first_token_s is None and not cancelling and not live.stream.has_gap
        live.ask_s = now_s + (min(ASK_EVERY_S * 2**live.asked, QUEUED_ASK_S_MAX) if queued else ASK_EVERY_S)

    def _heard(self, live: Live, now_s: float) -> None:
        live.heard_s, live.asked, live.adopting, live.missing = now_s, 0, False, 0
        if live.stream.has_gap:
            live.ask_s = min(live.ask_s, now_s + GAP_ASK_S)
        elif live.cancel_s is None:
            live.ask_s = now_s + SILENT_S

    def _close(self, live: Live, now_s: float) -> None:
        live.ended_s = now_s
        self.forget(live)
        self._ended[live.facts.id] = live
        self._on_end(live, now_s)
