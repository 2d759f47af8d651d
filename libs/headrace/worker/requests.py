"""What happens to requests between engine steps: they come, get their inputs, end, are told of again, are released.

Every method is a plain call on the event loop; only pulling tensors from other processes waits, in tasks.
Whoever calls flushes the outbox.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from headrace.core.commands import JoinCommand, OfferCommand, PartsCommand, PrefillCommand, ResendCommand
from headrace.core.errors import Cancelled, DeadlineExceeded, HeadraceError, Overloaded, StageError
from headrace.core.stages.roster import Roster
from headrace.core.types import FinishReason, Key, TensorHandle
from headrace.engines.base import Embeddings
from headrace.mesh.errors import TransferError
from headrace.mesh.faults import reach
from headrace.mesh.telemetry import sampled
from headrace.mesh.transfer import TensorStore
from headrace.worker.handover import embedding_of
from headrace.worker.holds import Held, Holds
from headrace.worker.intake import Intake
from headrace.worker.offers import Offers, Spawn
from headrace.worker.outbox import Outbox
from headrace.worker.outfit import Loaded
from headrace.worker.spans import Spans

# Late commands come within seconds of the cancel that they missed; more than this are not cancelled in that time.
FENCED_MAX = 4096
# Ended requests stand beside running ones until their ends are stored, a few milliseconds; while results cannot
# be stored they gather, and new work is refused rather than the memory filled. Evicted ones are bounded by their bytes.
HELD_PER_SLOT = 16
# How far a request has come at most, in its attempt and in tokens. One that was handed on may come back: by a join
# with more tokens than it had here. One that ended may not, whatever comes.
Progress = tuple[int, int]
ENDLESS = 1 << 62


class Requests:
    def __init__(
        self,
        me: str,
        loaded: Loaded,
        holds: Holds,
        outbox: Outbox,
        tensors: TensorStore,
        offers: Offers,
        spans: Spans,
        spawn: Spawn,
        withdraw: Callable[[Held], None],
        wake: Callable[[], None],
    ) -> None:
        self._me = me
        self._loaded = loaded
        self._serving = True
        self._holds = holds
        self._outbox = outbox
        self._tensors = tensors
        self._offers = offers
        self._spans = spans
        self._spawn = spawn
        self._withdraw = withdraw
        self._wake = wake
        self._fenced: OrderedDict[str, Progress] = OrderedDict()  # up to here they are over
        self._fed: list[Held] = []  # more of their media have come since the engine's last iteration

    # --- the model ---

    def vacate(self) -> None:
        """Another model will be served: what the engine still has goes elsewhere, and comers are refused."""
        self._serving = False
        for held in list(self._holds.requests.values()):
            if held.state == "resuming":
                self._roster.leave(held)
                held.drop_pulled_kv()
                held.to("evicted")
            elif held.state in ("waiting", "joining", "prefill", "running"):
                self.fail(held, StageError(f"{self._me} loads another model"), retryable=True)

    def serve(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._serving = True

    def objection(self, model: str) -> StageError | None:
        """Why nothing of this model can run here now."""
        if not self._serving:
            return StageError(f"{self._me} is loading a model")
        if model != self._intake.spec.name:
            return StageError(f"{self._me} serves {self._intake.spec.name}, not {model}")
        return None

    @property
    def _intake(self) -> Intake:
        return self._loaded.intake

    @property
    def _roster(self) -> Roster[Held]:
        return self._loaded.roster

    # --- they come ---

    def prefill(self, command: PrefillCommand) -> None:
        if not self._is_new(command.key, len(command.emitted)):
            return
        reach("prefill.received", command.key.request_id)
        held = self._intake.prefill(command, time.time(), traced=sampled(command.traceparent))
        if not self._admit(held):
            return
        if command.prompt.spans:
            self._pull_more(held)
        else:
            self._run(held)

    def parts(self, command: PartsCommand) -> None:
        """More embeddings of a request that is here; those that it knows of it may be told of again."""
        held = self._holds.current(command.key)
        if held is None or held.state not in ("waiting", "prefill"):
            return
        known = held.command.embeddings
        more = command.embeddings[len(known) - command.first :] if command.first <= len(known) else ()
        if not more:
            return
        held.command = replace(held.command, embeddings=known + more)
        held.spans += command.timeline
        self._pull_more(held)

    def join(self, command: JoinCommand) -> None:
        key = command.request.key
        if not self._is_new(key, len(command.request.emitted)):
            return
        reach("decode.received", key.request_id)
        held = self._intake.join(command, time.time(), traced=sampled(command.request.traceparent))
        if self._admit(held):
            self._spawn(self._pull_kv(held, command.kv))

    def offer(self, command: OfferCommand) -> None:
        """The request itself may never come; whatever is held of an older attempt stays until it does."""
        if command.kv is None:
            self._offers.withdraw(command.key)
        elif command.key.attempt > self._newest(command.key)[0]:
            reach("decode.offer_received", command.key.request_id)
            self._offers.receive(command.key, command.kv)

    def _is_new(self, key: Key, tokens: int) -> bool:
        """A duplicate of the same attempt is ignored, an older one too; a newer one replaces what is here."""
        if (key.attempt, tokens) <= self._newest(key):
            return False
        known = self._holds.requests.get(key.request_id)
        if known is not None:
            self._forget(known)
        self._offers.withdraw(replace(key, attempt=key.attempt - 1))
        return True

    def _newest(self, key: Key) -> Progress:
        """How far its request has come that is here, or is over."""
        fenced, known = self._fenced.get(key.request_id, (0, 0)), self._holds.requests.get(key.request_id)
        return fenced if known is None else max(fenced, (known.key.attempt, _tokens_at_most(known)))

    def _admit(self, held: Held) -> bool:
        if (objection := self.objection(held.command.model)) is not None:
            self._refuse(held.key, objection, retryable=True)
            return False
        if (refusal := self._intake.objection(held)) is not None:
            self._refuse(held.key, refusal, retryable=False)
            return False
        held_max = HELD_PER_SLOT * self._loaded.engine.slots
        if len(self._holds.requests) >= held_max and self._holds.beside_evicted() >= held_max:
            self._refuse(held.key, Overloaded(f"{self._me} holds {held_max} requests"), retryable=True)
            return False
        self._holds.requests[held.key.request_id] = held
        reason = held.finish.after_all(held.tokens)
        if reason is not None:  # the earlier attempt died between its last token and its end
            self.end(held, reason, time.time())
        return reason is None

    def _refuse(self, key: Key, error: HeadraceError, *, retryable: bool) -> None:
        self._outbox.failed(key, error.failure(), retryable=retryable)

    # --- they get their inputs ---

    def _pull_more(self, held: Held) -> None:
        if not held.pulling:
            held.pulling = True
            self._spawn(self._pull_embeddings(held))

    async def _pull_embeddings(self, held: Held) -> None:
        """All that it has been told of by then."""
        try:
            embeddings = held.sequence.embeddings
            while len(embeddings) < len(held.command.embeddings):
                embeddings += (await self._embedding(held.command.embeddings[len(embeddings)]),)
            held.sequence = self._intake.with_embeddings(held, embeddings)
        except TransferError as error:
            self.fail(held, error, retryable=True)
            return
        held.pulling = False
        if held.place == "outside":
            reach("prefill.fetched", held.key.request_id)
            if held.state == "waiting":
                self._spans.close(held, "transfer", time.time())
                self._run(held)
        else:
            reach("prefill.fed", held.key.request_id)
            self._fed.append(held)
            self._wake()

    async def _embedding(self, handle: TensorHandle) -> Embeddings:
        mine = self._holds.embedding(handle.id)
        if mine is not None:
            return mine
        fetched = await self._tensors.fetch(handle)
        try:
            return embedding_of(handle, fetched.buffer)
        finally:
            fetched.close()

    async def _pull_kv(self, held: Held, handle: TensorHandle) -> None:
        """Of one that joins or resumes."""
        try:
            pulled = await self._offers.pull(held.key, handle)
            if pulled is None and held.state in ("joining", "resuming"):
                pulled = await self._tensors.fetch(handle)
        except TransferError as error:
            self.fail(held, error, retryable=True)
            return
        if held.state == "joining":
            reach("decode.kv_fetched", held.key.request_id)
        if held.state in ("joining", "resuming") and held.pulled_kv is None and held.place == "outside":
            held.pulled_kv = pulled
            self._run(held)
        elif pulled is not None:
            pulled.close()

    def take_fed(self) -> list[Held]:
        """Those in the engine that have got more of their media since it was asked last, each once."""
        fed, self._fed = dict.fromkeys(self._fed), []
        return [held for held in fed if held.place == "inside" and held.state in ("waiting", "prefill")]

    def _run(self, held: Held) -> None:
        self._roster.wait(held)
        self._wake()

    # --- they go on ---

    def entered(self, held: Held, now_s: float) -> None:
        """The engine has taken it in; with its KV cache, if it joins."""
        if held.state == "waiting":
            held.to("prefill")
        elif held.state == "joining":
            self._spans.close(held, "transfer", now_s)
            held.to("running")
            reach("decode.joined", held.key.request_id)
            self._outbox.joined(held.key)
        elif held.state == "resuming":
            self._spans.close(held, "evicted", now_s)
            held.to("running")
            self._drop_exported(held)
            reach("decode.resumed", held.key.request_id)
            self._outbox.joined(held.key)

    def prefilled(self, held: Held, now_s: float) -> None:
        self._spans.close(held, "prefill", now_s)
        held.to("running")
        reach("prefill.first_token", held.key.request_id)

    def exported(self, held: Held, handle: TensorHandle, state: Literal["handover", "evicted"]) -> bool:
        """The KV cache waits in its file: the engine's copy goes. False: the request is over already."""
        if held.state != "running":
            self._tensors.drop(handle.id)
            return False
        held.to(state)
        held.exported_kv = handle
        self._roster.leave(held)
        return True

    def resume(self, held: Held) -> None:
        """The way of a join, but from a file of its own. What it needs for that is its tokens: media are in the KV."""
        assert held.exported_kv is not None
        tokens = held.command.prompt.tokens + tuple(held.tokens)
        held.sequence = replace(held.sequence, tokens=tokens, embeddings=())
        held.joining_kv = held.exported_kv
        held.to("resuming")
        self._spawn(self._pull_kv(held, held.exported_kv))

    # --- they end ---

    def end(self, held: Held, reason: FinishReason, now_s: float, error: HeadraceError | None = None) -> None:
        """Frees all but its tokens; those and the end are kept until the release."""
        self._spans.close(held, _STAGE[held.state], now_s)
        held.to("ended")
        self._free(held)
        held.end = self._spans.end(held, reason, error.failure() if error is not None else None)
        held.ended_s = now_s
        self._outbox.end(held)
        reach("decode.ended", held.key.request_id)

    def cancel(self, key: Key) -> None:
        self._fence(key)
        self._offers.withdraw(key)
        held = self._holds.requests.get(key.request_id)
        if held is None or held.key.attempt > key.attempt or held.state == "ended":
            return
        now_s = time.time()
        if now_s >= held.command.deadline_s > 0:
            self.end(held, "deadline", now_s, DeadlineExceeded("the request's time is over"))
        else:
            self.end(held, "cancelled", now_s, Cancelled("the request was cancelled"))

    def fail(self, held: Held, error: HeadraceError, *, retryable: bool) -> None:
        """This attempt is over here. Nothing is kept: should the event be lost, the repeated command fails again."""
        if self._holds.current(held.key) is held and held.state != "ended":
            self._spans.close(held, _STAGE[held.state], time.time())
            self._forget(held)
            self._outbox.failed(held.key, error.failure(), retryable=retryable, timeline=held.timeline)
            self._outbox.flush()

    # --- they are told of again, and released ---

    def resend(self, command: ResendCommand) -> None:
        held = self._holds.current(command.key)
        if held is None:
            return
        held.gateway = command.gateway
        self._outbox.resend(held, command.from_index)

    def repeat_ends(self, before_s: float) -> None:
        """Ends that nobody has acknowledged since; once a heartbeat, as is the look at offers that nobody came for."""
        self._offers.sweep(time.monotonic())
        for held in self._holds.requests.values():
            if held.state == "ended" and held.ended_s < before_s:
                self._outbox.report_end(held)

    def release(self, key: Key) -> None:
        held = self._holds.requests.get(key.request_id)
        self._fence(key, self._released_tokens(key, held))
        self._offers.withdraw(key)
        if held is not None and held.key.attempt <= key.attempt:
            held.offered = held.offered and held.state != "handover"  # then whoever decodes it has it
            self._forget(held)
            reach("decode.released", key.request_id)

    def _forget(self, held: Held) -> None:
        self._free(held)
        self._spans.lose(held)
        del self._holds.requests[held.key.request_id]
        if held.state != "ended":
            held.to("ended")  # whatever is under way for it finds out

    def _free(self, held: Held) -> None:
        if held.place != "inside":  # else the engine may be reading it: it closes it
            held.drop_pulled_kv()
        if held.place != "outside":
            self._roster.leave(held)
            self._wake()
        if held.offered:
            held.offered = False
            self._withdraw(held)
        self._drop_exported(held)

    def _drop_exported(self, held: Held) -> None:
        if held.exported_kv is not None:
            self._tensors.drop(held.exported_kv.id)
            held.exported_kv = None

    def _fence(self, key: Key, tokens: int = ENDLESS) -> None:
        fenced = self._fenced.pop(key.request_id, (0, 0))
        self._fenced[key.request_id] = max((key.attempt, tokens), fenced)
        if len(self._fenced) > FENCED_MAX:
            self._fenced.popitem(last=False)

    def _released_tokens(self, key: Key, held: Held | None) -> int:
        """A release says nothing of what may come back: it may be the second one, of what was handed on before."""
        if held is not None and held.key == key:
            return _tokens_at_most(held)
        return 0 if self._fenced.get(key.request_id, (0, 0))[0] == key.attempt else ENDLESS


def _tokens_at_most(held: Held) -> int:
    return len(held.tokens) if held.state == "handover" else ENDLESS


# Which stage the time belongs to that ends now.
_STAGE = {
    "waiting": "prefill",
    "prefill": "prefill",
    "joining": "transfer",
    "running": "decode",
    "evicted": "evicted",
    "resuming": "evicted",
    "handover": "transfer",
}
