"""Prefill and decode of a simulated worker: the live engines' batch and roster, a profile's seconds, counted tokens.

Between two events a batch that only decodes is advanced by as many iterations as fit, in closed form; whatever changes
it cuts the stretch at the end of the iteration that is running.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.core.commands import JoinCommand
from headrace.core.cost import StepCost, StepWork
from headrace.core.events import Joined, Prefilled
from headrace.core.instance import Done
from headrace.core.stages.batch import Batch, Chunk, Live, work_of
from headrace.core.stages.roster import Roster
from headrace.sim.held import Counted, Held
from headrace.sim.iteration import Iteration, decode_share, slow_of
from headrace.sim.places import Places, Turns

if TYPE_CHECKING:
    from headrace.sim.worker import Worker


class LlmStage:
    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        kind = self._kind = worker.kind
        self.batch: Batch[Counted, Held] = Batch(
            slots=kind.slots,
            blocks=kind.blocks,
            block_tokens=kind.block_tokens,
            context_tokens=kind.context_tokens,
            chunk_tokens=kind.chunk_tokens,
            place=_place if kind.line not in ("mesh", "fifo") else None,
        )
        together = worker.world.config.together and kind.encodes
        self.places = Places(kind, together, worker.world.ledger.target_s)
        self.turns = Turns(self._let_in) if together else None
        self.roster: Roster[Held] = Roster(kind.slots, kind.blocks)
        self._cost = _with_loop(kind.step, worker.world.mesh.iteration_s)
        self._iteration: Iteration | None = None
        self._to_evict: list[Held] = []
        self._busy_s = 0.0
        self._iterations = self._prefilled_tokens = self._decoded_tokens = 0

    @property
    def running(self) -> int:
        return len(self.batch.running)

    @property
    def waiting(self) -> int:
        return len(self.batch) - self.running

    def wait(self, held: Held) -> None:
        """Its inputs are here."""
        held.line_place = self.places.to_prefill(held.asked)
        if self.turns is not None and held.state == "waiting":
            self.turns.ready(held, held.line_place)
        else:
            self.roster.wait(held)

    def _let_in(self, held: Held) -> None:
        if held.state == "waiting" and held.place == "outside":  # not cancelled meanwhile
            self.roster.wait(held)
            self._worker.wake()

    # --- schedule ---

    def begin(self) -> bool:
        if self._to_evict and self._copy_out():
            return True
        turn = self.roster.turn()
        for held in turn.leaving:
            self.batch.remove(held.key)
        now_s = self._worker.world.now_s
        for held in turn.entering:
            self.batch.add(held.sequence, 0, held, held.filled)
            if held.state == "waiting":
                held.state = "prefill"
                held.began_s = now_s
        if not self.batch.has_work():
            return False
        chunks = self.batch.next_chunks()
        decoding = list(self.batch.running)
        single = chunks or turn.entering or self._worker.world.one_by_one or self._worker.waits_beside(self)
        steps = 1 if single else min([live.state.left for live in decoding])
        work, copy_s = self._work(decoding, chunks), self._export_s(chunks)
        if turn.entering:
            copy_s += sum([self._copy_s(held.parked_bytes) for held in turn.entering if held.parked_bytes])
        slow = slow_of(self._cost, work, self._worker.speeds)
        self._run(Iteration(now_s, work, decoding, chunks, turn.entering, steps, copy_s, slow))
        return True

    def _work(self, decoding: list[Live[Counted, Held]], chunks: list[Chunk[Counted, Held]]) -> StepWork:
        work = work_of(decoding, chunks)
        if not self._kind.cross_kv_bytes_per_token:
            return work
        made = pairs = 0
        for chunk in chunks:
            rows = chunk.live.state.asked.cross_rows
            made += 0 if chunk.start else rows
            pairs += (chunk.stop - chunk.start) * rows
        return StepWork(
            work.prefill_tokens,
            work.prefill_pairs,
            work.decode_sequences,
            work.decode_context_tokens,
            made,
            pairs,
            sum([live.state.asked.cross_rows for live in decoding]),
        )

    def feed(self, held: Held) -> None:
        """More of its media have come, and it is in the engine."""
        self.batch.feed(held.key, held.sequence)
        self._worker.wake()

    # --- run ---

    def _run(self, iteration: Iteration) -> None:
        self._iteration = iteration
        self._worker.meter.work(iteration.start_s, self._power_w(iteration.work))
        self._until(iteration, iteration.steps)

    def _until(self, iteration: Iteration, steps: int) -> None:
        """It is over at the end of so many steps."""
        iteration.steps = steps
        self._ends(iteration, iteration.start_s + iteration.took_s(self._cost, steps))

    def _ends(self, iteration: Iteration, end_s: float) -> None:
        agenda = self._worker.world.agenda
        iteration.end_s = max(end_s, agenda.now_s)
        agenda.at(iteration.end_s, self._end, iteration, iteration.end_s)

    def interrupt(self) -> None:
        """Something changes: the stretch ends with the step that is running."""
        iteration = self._iteration
        if iteration is None or not iteration.is_stretch(self._cost):
            return
        begun = iteration.begun(self._cost, self._worker.world.now_s)
        if begun < iteration.steps:
            self._until(iteration, begun)

    def change_speed(self) -> None:
        """The worker's speeds are others from now on."""
        self.interrupt()
        iteration, now_s = self._iteration, self._worker.world.now_s
        if iteration is not None and iteration.end_s > now_s:
            slow = slow_of(self._cost, iteration.work, self._worker.speeds)
            self._ends(iteration, iteration.change_speed(self._cost, now_s, slow))

    def _power_w(self, work: StepWork) -> float:
        """By the share of the iteration's time that prefilling adds to decoding."""
        power = self._kind.power
        share = decode_share(self._cost, work)
        return share * power.decode_w + (1 - share) * power.prefill_w

    # --- postprocess ---

    def _end(self, iteration: Iteration, end_s: float) -> None:
        if iteration is not self._iteration or end_s != iteration.end_s:
            return  # cut meanwhile, or of a life before this one
        if not self._worker.runs(self._end, iteration, end_s):
            return
        self._iteration = None
        self._gaps(iteration)
        self._count(iteration.work, iteration.steps, iteration.end_s - iteration.start_s)
        for held in iteration.entering:
            if held.state == "joining" or held.state == "resuming":
                self._entered(held)
        for live in iteration.decoding:
            live.advance(iteration.steps)
            self._say(live.state, iteration.steps)
        for chunk in iteration.chunks:
            self.batch.filled(chunk)
            if chunk.ends_prefill:
                self._prefilled(chunk.live)
        self._worker.over()

    def _entered(self, held: Held) -> None:
        if held.state == "resuming":
            self._worker.parking.resumed(held)
        held.state = "running"
        self._worker.send(Joined(self._worker.id, held.key))

    def _count(self, work: StepWork, steps: int, took_s: float) -> None:
        self._busy_s += took_s
        self._iterations += steps
        self._prefilled_tokens += work.prefill_tokens
        self._decoded_tokens += work.decode_sequences * steps

    def _say(self, held: Held, tokens: int) -> None:
        if held.state != "ended":  # cancelled while the iteration ran
            self._worker.say(held, tokens)

    def _prefilled(self, live: Live[Counted, Held]) -> None:
        held = live.state
        live.emit(0)
        if held.state == "ended":
            return
        held.state = "running"
        filled = held.sequence.length
        self._worker.say(held, 1)
        if held.state == "running" and held.command.decode_worker != self._worker.id:
            self._hand_over(held, filled)

    def _hand_over(self, held: Held, filled: int) -> None:
        """Out of the engine and into a file, from which its decode worker reads."""
        worker, world = self._worker, self._worker.world
        held.state = "handover"
        self.roster.leave(held)
        size_bytes = self._kv_bytes(held, filled)
        held.kv = worker.tensor(size_bytes, filled)
        worker.send(Prefilled(worker.id, held.key, held.emitted, held.kv))
        join = JoinCommand(replace(held.command, emitted=world.zeros(held.emitted)), held.kv)
        prefill_s = world.now_s - held.began_s - world.mesh.export_byte_s * size_bytes
        left_bytes = world.left_behind(size_bytes, prefill_s)
        world.post(held.command.decode_worker, join, left_bytes, delay_s=world.mesh.command_s)

    def _kv_bytes(self, held: Held, filled: int) -> int:
        kind = self._kind
        return filled * kind.kv_bytes_per_token + held.asked.cross_rows * kind.cross_kv_bytes_per_token

    def _export_s(self, chunks: list[Chunk[Counted, Held]]) -> float:
        """What writing out KV caches adds to the iteration that completes them; small ones are written behind it."""
        mesh, me = self._worker.world.mesh, self._worker.id
        if not mesh.export_byte_s:
            return 0.0
        ending = [chunk.live for chunk in chunks if chunk.ends_prefill]
        leaving = [live for live in ending if live.state.command.decode_worker != me]
        sizes = [self._kv_bytes(live.state, live.length) for live in leaving]
        return mesh.export_byte_s * sum([size for size in sizes if size >= mesh.pipeline_bytes])

    def _gaps(self, iteration: Iteration) -> None:
        """Every gap between two tokens; a sequence that did not run just before has waited longer for its first."""
        decoding, steps = iteration.decoding, iteration.steps
        if not decoding:
            return
        gaps = self._worker.world.ledger.gaps
        mean_s = (iteration.end_s - iteration.start_s) / steps
        steady = len(decoding) * steps
        for live in decoding:
            last_s = live.state.last_s
            if last_s != iteration.start_s and last_s:
                gaps.count(iteration.start_s + mean_s - last_s)
                steady -= 1
        if steady:
            gaps.count(mean_s, steady)

    # --- eviction ---

    def evict(self, held: Held) -> None:
        """Once the running iteration is over."""
        self._to_evict.append(held)
        self._worker.wake()

    def _copy_out(self) -> bool:
        """Whether the device copies KV caches now, before it goes on."""
        going = [held for held in self._to_evict if self._leaves(held)]
        self._to_evict = []
        if going:
            copy_s = sum([self._copy_s(held.parked_bytes) for held in going])
            self._worker.world.agenda.after(copy_s, self._copied, going)
        return bool(going)

    def _leaves(self, held: Held) -> bool:
        """Out of the engine, if it still decodes and host memory has room; its slot is free with the next turn."""
        if held.state != "running":
            return False
        size_bytes = self._kv_bytes(held, held.sequence.prompt_len + held.emitted - 1)
        if not self._worker.parking.take(held, size_bytes):
            return False
        held.state = "evicting"
        self.roster.leave(held)
        return True

    def _copy_s(self, size_bytes: int) -> float:
        return self._kind.host.transfer_s(size_bytes) + self._worker.world.mesh.export_byte_s * size_bytes

    def _copied(self, going: list[Held]) -> None:
        if self._worker.runs(self._copied, going):
            self.copied(going)
            self._worker.over()

    def copied(self, going: list[Held]) -> None:
        for held in going:
            if held.state == "evicting":  # not cancelled meanwhile
                self._worker.parking.evicted(held)

    def vacate(self) -> tuple[list[Held], float]:
        """Everybody leaves: who decodes goes to host memory, and how long copying takes; who cannot has failed."""
        worker, going = self._worker, list[Held]()
        for held in list(worker.held.values()):
            if held.state == "running" and self._leaves(held):
                going.append(held)
            elif held.state == "resuming":
                if held.place != "outside":
                    self.roster.leave(held)
                held.state = "evicted"
                worker.parking.tell(held)
            elif held.state in ("waiting", "joining", "prefill", "running"):
                worker.fail(held, f"{worker.id} loads {worker.loading}")
        turn = self.roster.turn()
        assert not turn.entering
        for held in turn.leaving:
            self.batch.remove(held.key)
        return going, sum([self._copy_s(held.parked_bytes) for held in going])

    # --- what it tells of itself ---

    @property
    def ahead(self) -> int:
        """Iterations of the running stretch that are over already."""
        return self._iteration.ahead(self._cost, self._worker.world.now_s) if self._iteration is not None else 0

    def done(self, ahead: int) -> Done:
        busy_s, decoded = self._busy_s, self._decoded_tokens
        if ahead:
            assert self._iteration is not None
            work = self._iteration.work
            busy_s += self._iteration.ahead_s(self._cost, ahead)
            decoded += ahead * work.decode_sequences
        return Done(busy_s, self._iterations + ahead, self._prefilled_tokens, decoded)

    # --- a life ends ---

    def settle(self) -> None:
        """The worker dies now: what its stretch has already said was said."""
        iteration, done = self._iteration, self.ahead
        self._iteration = None
        for live in iteration.decoding if iteration is not None and done else ():
            self._say(live.state, min(done, live.state.left - 1))


def _with_loop(cost: StepCost, loop_s: float) -> StepCost:
    if not loop_s:
        return cost
    curve = cost.tokens_s
    return replace(cost, tokens_s=replace(curve, ys=tuple(y + loop_s for y in curve.ys)))


def _place(live: Live[Counted, Held]) -> float:
    return live.state.line_place
