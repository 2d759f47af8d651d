"""The loop of an LLM worker, be it prefill, decode or both: schedule, run, postprocess.

Commands act on the holds between two steps, on the event loop; the engine follows at its next step.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from headrace.core.errors import StageError
from headrace.core.stages.batch import Emitted, Prefilled
from headrace.core.stages.roster import Roster, Turn
from headrace.engines.base import Engine, KvMismatch, StepResult
from headrace.mesh.errors import TransferError
from headrace.mesh.faults import reach
from headrace.worker.exports import Export, Exports
from headrace.worker.holds import Held, Holds
from headrace.worker.kvwire import check_whole, manifest_of, raw_kv
from headrace.worker.outbox import Outbox
from headrace.worker.pace import Pace
from headrace.worker.requests import Requests
from headrace.worker.tally import Tally

T = TypeVar("T")
Refusals = list[tuple[Held, str]]
IDLE = StepResult((), (), 0, 0)
# Iterations of an engine that costs nothing share a message for this long: no client reads faster, and one message
# per iteration would be all that the bus and the gateway ever do. A real engine's iterations take longer.
SHARE_S = 0.001


class Llm:
    def __init__(
        self,
        me: str,
        engine: Engine,
        roster: Roster[Held],
        holds: Holds,
        requests: Requests,
        outbox: Outbox,
        exports: Exports,
        announce: Callable[[list[Held]], None],
        tally: Tally,
    ) -> None:
        """announce tells the world of KV caches that now wait here for their decode workers."""
        self._me = me
        self._engine = engine
        self._roster = roster
        self._holds = holds
        self._requests = requests
        self._outbox = outbox
        self._exports = exports
        self._announce = announce
        self._tally = tally
        self._pace = Pace()
        self._flushed_s = 0.0
        self._thread = ThreadPoolExecutor(1, "inference")

    async def run(self, work: asyncio.Event) -> None:
        """work is set by whoever gives the roster something to do."""
        loop, rested_until_s = asyncio.get_running_loop(), 0.0
        while True:
            if not work.is_set():
                await work.wait()
                rested_until_s = loop.time()
            work.clear()
            turn = self._roster.turn()
            self._exports.begin(turn.entering)
            result, refusals, entered_s = await self._infer(partial(self._step, turn))
            await self._pace.wait(result.modelled_s, rested_until_s)
            self._postprocess(turn, result, refusals, entered_s)
            self._flush()
            await self._hand_over(result.prefilled)
            if self._engine.has_work() or self._roster.has_turn():
                work.set()

    def _flush(self) -> None:
        now_s = time.monotonic()
        if self._engine.inline and self._engine.has_work() and now_s - self._flushed_s < SHARE_S:
            return
        self._flushed_s = now_s
        self._outbox.flush()

    # --- in the inference thread ---

    def _step(self, turn: Turn[Held]) -> tuple[StepResult, Refusals, float]:
        """The last: when those that enter were in, before the iteration; their transfer ends there."""
        start_s = time.perf_counter()
        for held in turn.leaving:
            self._engine.remove(held.key)
        refusals = [(held, why) for held in turn.entering if (why := self._enter(held))]
        entered_s = time.time()
        result = self._engine.step() if self._engine.has_work() else IDLE
        self._tally.step(result, result.modelled_s or time.perf_counter() - start_s)
        return result, refusals, entered_s

    def _enter(self, held: Held) -> str:
        """Why the engine cannot continue it; empty: it does."""
        try:
            if held.joining_kv is None:
                self._engine.add(held.sequence, held.export)
                return ""
            assert held.pulled_kv is not None
            manifest = manifest_of(held.joining_kv)
            check_whole(held.sequence, manifest, self._engine.spec.prefix_tokens)
            self._engine.import_kv(held.sequence, manifest, raw_kv(held.joining_kv, manifest, held.pulled_kv.buffer))
        except (KvMismatch, StageError) as error:  # a TransferError is a StageError
            return str(error)
        finally:
            held.drop_pulled_kv()
        return ""

    # --- on the event loop ---

    async def _infer(self, call: Callable[[], T]) -> T:
        if self._engine.inline:
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _postprocess(self, turn: Turn[Held], result: StepResult, refusals: Refusals, entered_s: float) -> None:
        now_s = time.time()
        for held in turn.leaving:
            self._exports.abandon(held)
        for held, why in refusals:
            self._exports.abandon(held)
            self._roster.refused(held)
            self._requests.fail(held, TransferError(why), retryable=True)
        for held in turn.entering:
            self._requests.entered(held, entered_s)
        for ended in result.prefilled:
            if (current := self._holds.current(ended.key)) is not None:
                current.cached_tokens = ended.cached_tokens
        for emitted in result.emitted:
            self._emit(emitted, now_s)

    def _emit(self, emitted: Emitted, now_s: float) -> None:
        held = self._holds.requests.get(emitted.key.request_id)
        if held is None or held.state == "ended" or (held.key is not emitted.key and held.key != emitted.key):
            return  # cancelled or replaced while the step ran
        if held.state == "prefill":
            self._requests.prefilled(held, now_s)
        else:
            reach("decode.token", emitted.key.request_id)
        assert emitted.index == len(held.tokens), f"{emitted} after {len(held.tokens)} tokens"
        held.tokens.append(emitted.token)
        if emitted.logprobs is not None:
            held.logprobs[emitted.index] = emitted.logprobs
        self._outbox.token(held, emitted.index, emitted.token)
        reason = held.finish.after(emitted.token)
        if reason is not None:
            self._requests.end(held, reason, now_s)

    async def _hand_over(self, prefilled: tuple[Prefilled, ...]) -> None:
        """Requests that another worker decodes leave the engine for a file before the next step."""
        held_now = filter(None, (self._holds.current(ended.key) for ended in prefilled))
        outgoing = [h for h in held_now if h.state == "running" and h.command.decode_worker != self._me]
        if not outgoing:
            return
        exports = [(held, export) for held in outgoing if (export := self._make_room(held)) is not None]
        if not all(export.complete for _, export in exports):
            await self._infer(partial(self._exports.fill, exports))
        self._announce([held for held, _ in exports if self._seal(held)])

    def _make_room(self, held: Held) -> Export | None:
        try:
            return self._exports.make(held)
        except TransferError as error:
            self._requests.fail(held, error, retryable=True)
            return None

    def _seal(self, held: Held) -> bool:
        """False: it could not be written, or the request is over already."""
        try:
            return self._requests.handed_over(held, self._exports.seal(held))
        except TransferError as error:
            self._exports.abandon(held)
            self._requests.fail(held, error, retryable=True)
            return False
