"""The loop of an LLM worker, be it prefill, decode or both: schedule, run, postprocess.

Commands act on the holds between two steps, on the event loop; the engine follows at its next step.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from headrace.core.errors import StageError
from headrace.core.stages.batch import Emitted, Prefilled
from headrace.core.stages.roster import Turn
from headrace.engines.base import KvMismatch, StepResult
from headrace.mesh.errors import TransferError
from headrace.mesh.faults import reach
from headrace.worker.devices import NO_JOULES, Devices
from headrace.worker.evictions import Evictions
from headrace.worker.exports import Export
from headrace.worker.holds import Held, Holds
from headrace.worker.kvwire import check_whole, manifest_of, raw_kv
from headrace.worker.outbox import Outbox
from headrace.worker.outfit import Loaded
from headrace.worker.pace import Pace
from headrace.worker.requests import Requests
from headrace.worker.tally import Tally

T = TypeVar("T")
Refusals = list[tuple[Held, str]]
Joules = tuple[float, float]  # of an iteration's prefill, and of its decoding
IDLE = StepResult((), (), 0, 0)
# Iterations of an engine that costs nothing share a message for this long: no client reads faster, and one message
# per iteration would be all that the bus and the gateway ever do. A real engine's iterations take longer.
SHARE_S = 0.001


@dataclass(slots=True)
class Iteration:
    result: StepResult
    refusals: Refusals
    entered_s: float  # when those that enter were in, before the iteration; their transfer ends there
    took_s: float


class Llm:
    def __init__(
        self,
        me: str,
        loaded: Loaded,
        thread: ThreadPoolExecutor,
        holds: Holds,
        requests: Requests,
        evictions: Evictions,
        outbox: Outbox,
        announce: Callable[[list[Held]], None],
        tally: Tally,
        pace: Pace,
        devices: Devices,
    ) -> None:
        """thread: of one worker alone, all that the engine computes runs there.

        announce tells the world of KV caches that now wait here for their decode workers.
        """
        self._me = me
        self._engine = loaded.engine
        self._roster = loaded.roster
        self._exports = loaded.exports
        self._thread = thread
        self._holds = holds
        self._requests = requests
        self._evictions = evictions
        self._outbox = outbox
        self._announce = announce
        self._tally = tally
        self._pace = pace
        self._devices = devices
        self._token_j = 0.0  # of a decoded token in the iteration at hand
        self._paid = 0  # of its decoded tokens, those that belong to somebody
        self._flushed_s = 0.0

    async def run(self, work: asyncio.Event, replaced: Callable[[], bool]) -> None:
        """Until another model is wanted; the engine is empty then.

        work is set by whoever gives the roster something to do, or wants the other model.
        """
        loop, rested_until_s = asyncio.get_running_loop(), 0.0
        while True:
            if not work.is_set():
                await work.wait()
                rested_until_s = loop.time()
            work.clear()
            if replaced():
                break
            await self._pace.free()
            turn = self._roster.turn()
            self._exports.begin(turn.entering)
            fed = self._requests.take_fed()
            done = await self._infer(partial(self._step, turn, fed))
            joules, end_s = self._spend(done, rested_until_s)
            await (asyncio.sleep(0) if end_s is None else self._pace.until(end_s))
            self._postprocess(turn, done, joules)
            self._flush()
            await self._hand_over(done.result.prefilled)
            await self._evict()
            if self._engine.has_work() or self._roster.has_turn():
                work.set()
        await self._vacate()

    def _flush(self) -> None:
        now_s = time.monotonic()
        if self._engine.inline and self._engine.has_work() and now_s - self._flushed_s < SHARE_S:
            return
        self._flushed_s = now_s
        self._outbox.flush()

    # --- in the inference thread ---

    def _step(self, turn: Turn[Held], fed: list[Held]) -> Iteration:
        start_s = time.perf_counter()
        for held in turn.leaving:
            self._engine.remove(held.key)
        refusals = [(held, why) for held in turn.entering if (why := self._enter(held))]
        out = [held for held, _ in refusals]
        refusals += [(held, why) for held in fed if held not in out and (why := self._feed(held))]
        entered_s = time.time()
        result = self._engine.step() if self._engine.has_work() else IDLE
        return Iteration(result, refusals, entered_s, time.perf_counter() - start_s)

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

    def _feed(self, held: Held) -> str:
        """Why the engine cannot take more of its media; empty: it has. The request's own: they only become more."""
        try:
            self._engine.feed(held.sequence)
        except StageError as error:
            return str(error)
        return ""

    # --- on the event loop ---

    async def _infer(self, call: Callable[[], T]) -> T:
        if self._engine.inline:
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _spend(self, done: Iteration, rested_until_s: float) -> tuple[Joules, float | None]:
        """What the iteration takes, under the cap that holds as it begins; and until when. None: a real one is over."""
        result, tokens = done.result, done.result.prefill_tokens + done.result.decode_tokens
        prefill_s = decode_s = 0.0
        end_s: float | None = None
        if result.modelled_s:
            prefill_s = result.modelled_prefill_s
            prefill_s, decode_s = self._devices.slowed(prefill_s, result.modelled_s - prefill_s)
            end_s = self._pace.book(prefill_s + decode_s, rested_until_s)
        elif tokens:  # shared out by tokens
            prefill_s = done.took_s * result.prefill_tokens / tokens
            decode_s = done.took_s - prefill_s
        if not tokens:
            return NO_JOULES, end_s
        self._tally.step(result, prefill_s, decode_s)
        return self._devices.iteration(prefill_s, decode_s, end_s), end_s

    def _charge(self, result: StepResult, joules: Joules) -> None:
        """Prompts first: those that end here leave their stage with this iteration. Each token costs as any other."""
        prefill_j, decode_j = joules
        self._token_j = decode_j / result.decode_tokens if decode_j else 0.0
        self._paid = 0
        if not prefill_j:
            return
        for key, tokens in result.chunks:
            share_j = prefill_j * tokens / result.prefill_tokens
            held = self._holds.current(key)
            if held is not None and held.state != "ended":
                held.joules += share_j
            else:
                self._devices.account.lost_j += share_j

    def _postprocess(self, turn: Turn[Held], done: Iteration, joules: Joules) -> None:
        now_s, result = time.time(), done.result
        for held in turn.leaving:
            self._exports.abandon(held)
        for held, why in done.refusals:
            self._exports.abandon(held)
            if held in turn.entering:
                self._roster.refused(held)
            self._requests.fail(held, TransferError(why), retryable=True)
        for held in turn.entering:
            self._requests.entered(held, done.entered_s)
        for ended in result.prefilled:
            if (current := self._holds.current(ended.key)) is not None:
                current.cached_tokens = ended.cached_tokens
        for key, why in result.failed:
            if (failed := self._holds.current(key)) is not None:
                self._requests.fail(failed, StageError(why), retryable=False)
        self._charge(result, joules)
        for emitted in result.emitted:
            self._emit(emitted, now_s)
        self._devices.account.lost_j += self._token_j * (result.decode_tokens - self._paid)

    def _emit(self, emitted: Emitted, now_s: float) -> None:
        held = self._holds.requests.get(emitted.key.request_id)
        if held is None or held.state == "ended" or (held.key is not emitted.key and held.key != emitted.key):
            return  # cancelled or replaced while the step ran
        if held.state == "prefill":
            self._requests.prefilled(held, now_s)
        else:
            held.joules += self._token_j
            self._paid += 1
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
            return self._requests.exported(held, self._exports.seal(held), "handover")
        except TransferError as error:
            self._exports.abandon(held)
            self._requests.fail(held, error, retryable=True)
            return False

    async def _evict(self) -> None:
        """Requests leave the engine for files of this process before the next step; what finds no room goes on."""
        exports = list[tuple[Held, Export]]()
        room_bytes = self._evictions.room_bytes() if (wanted := self._evictions.take()) else 0
        for held in wanted:
            if (export := self._exports.evict(held, room_bytes)) is not None:
                exports.append((held, export))
                room_bytes -= export.manifest.size_bytes
                reach("decode.evicting", held.key.request_id)
        if not exports:
            return
        await self._infer(partial(self._exports.fill, exports))
        evicted = [held for held, _ in exports if self._seal_evicted(held)]
        self._tally.evictions += len(evicted)
        self._outbox.flush()
        await asyncio.sleep(0)  # the bus writes at the end of the loop's turn
        for held in evicted:
            reach("decode.evicted", held.key.request_id)

    def _seal_evicted(self, held: Held) -> bool:
        """False: it could not be written and goes on, or the request is over already."""
        try:
            return self._evictions.evicted(held, self._exports.seal(held))
        except TransferError:
            self._exports.abandon(held)
            return False

    async def _vacate(self) -> None:
        """Whatever decodes is evicted, whatever cannot be fails here and goes elsewhere."""
        self._evictions.evict_all()
        await self._evict()
        self._requests.vacate()
        turn = self._roster.turn()
        assert not turn.entering, "nobody waits for a model that goes"
        await self._infer(partial(self._step, turn, []))
        for held in turn.leaving:
            self._exports.abandon(held)
        assert not self._engine.slots_used(), "somebody is left behind"
        self._outbox.flush()
