"""One batch, worked at by the gateway that holds its lease: checked, its lines asked, its files written.

Whatever is done is durable before it counts, and everything may be done twice: a line under the same key is the same
request, a line's outcome is stored once, and the files follow from the outcomes alone. So a gateway that dies, or is
taken for dead, is followed by another one that goes on.
"""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.core.errors import Unavailable
from headrace.mesh.catalogue import Stale
from headrace.mesh.files import FileDraft, FileStore
from headrace.mesh.follower import Record
from headrace.mesh.logs import get_logger
from headrace.mesh.outcomes import Outcomes
from services.gateway import batch_lines
from services.gateway.batch_errand import Endpoint
from services.gateway.batch_lines import Check, Trouble
from services.gateway.batch_lines_run import LineRunner
from services.gateway.batch_records import BatchRecord, FileRecord, LineError, Status
from services.gateway.batch_shelf import Shelf
from services.gateway.batch_tally import Tally
from services.gateway.front import Front
from services.gateway.http_reply import Disconnects

RENEW_S = 1.0
AGAIN_S = 1.0  # while the stream is away

log = get_logger("batches")


class LeaseLost(Exception):
    """Another gateway works at this batch now."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run works with."""

    front: Front
    disconnects: Disconnects
    shelf: Shelf
    files: FileStore
    outcomes: Outcomes
    endpoints: Mapping[str, Endpoint]
    lines_max: int
    inflight: int
    kept_s: float


class BatchRun:
    def __init__(self, tools: Tools, record: BatchRecord, seq: int, ended: Counter[str]) -> None:
        """record: with this gateway as its holder, written as number seq. ended: counts lines by where they go."""
        self.record = record
        self._ended_here = ended
        self._tools = tools
        self._seq = seq
        self._writing = asyncio.Lock()
        self._tally = Tally()
        self._lines = LineRunner(tools.front, tools.disconnects, tools.endpoints[record.endpoint], record)

    async def run(self) -> None:
        """To the batch's end.

        Raises an ExceptionGroup of:
            LeaseLost
            NotFound: the input file is not on this machine.
        """
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(self._renew())
            await self._to_its_end()
            renewing.cancel()

    def heard(self, record: BatchRecord) -> None:
        """The catalogue has this now."""
        if record.status == "cancelling":
            self._lines.halt()

    async def release(self) -> None:
        """Whoever wants to goes on at once. Raises Unavailable; ExceptionGroup as run()."""
        if self.record.open:
            await self._save(holder="", incarnation="")

    async def _to_its_end(self) -> None:
        if not self._tools.files.has(self.record.input_file) and time.time() > self.record.deadline_s:
            await self._reach("failed", errors=(LineError("input_file_missing", "nobody has the input file"),))
            return
        if self.record.status == "validating" and not await self._begin():
            return
        tally = Tally()
        await self._read_outcomes(tally.take)
        self._tally = tally
        if self.record.status == "in_progress" or self.record.ending == "completed":
            await self._work()  # of one that was nearly over: nothing, unless outcomes were lost with their stream
        await self._end()

    # --- the record ---

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            if time.time() > self.record.deadline_s:
                self._lines.halt()
            try:
                await self._save()
            except Unavailable as error:  # the bus is away, and so it is for everybody else
                log.warning("batch_renewal_waits", batch=self.record.id, why=str(error))

    async def _save(self, status: Status | None = None, **changes: Any) -> None:
        """Writes the record with what has changed; a cancel that came first stands. Raises LeaseLost, Unavailable."""
        async with self._writing:
            while True:
                record = msgspec.structs.replace(self._standing(status), **changes, renewed_s=time.time())
                try:
                    self._seq = await self._tools.shelf.write(record, self._seq)
                except Stale:
                    await self._reread()
                else:
                    self.record = record
                    return

    def _standing(self, status: Status | None) -> BatchRecord:
        """The record with what has been counted and, if any, with the status that is reached."""
        record, tally = self.record, self._tally
        if tally.seen:
            record = msgspec.structs.replace(record, completed=tally.completed, failed=tally.failed)
        if status is None or (record.status == "cancelling" and status in ("in_progress", "finalizing")):
            return record
        times = {**record.times, status: record.times.get(status, time.time())}
        return msgspec.structs.replace(record, status=status, times=times)

    async def _reread(self) -> None:
        """Somebody wrote between: a client that cancels, or a gateway that takes this one for dead."""
        shelved = await self._tools.shelf.fresh(self.record.id)
        if shelved is None:  # the stream has lost it, and this holder has not
            self._seq = 0
            return
        newest = shelved.record
        if not isinstance(newest, BatchRecord) or newest.incarnation != self.record.incarnation:
            raise LeaseLost(self.record.id)
        self._seq = shelved.seq
        if newest.status == "cancelling" and self.record.status != "cancelling":
            self.record = msgspec.structs.replace(self.record, status="cancelling", times=newest.times)
            self._lines.halt()

    async def _reach(self, status: Status, **changes: Any) -> None:
        """Waits while the stream is away. Raises LeaseLost."""
        while True:
            try:
                await self._save(status, **changes)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
            else:
                log.info("batch", batch=self.record.id, status=self.record.status)
                return

    # --- validating ---

    async def _begin(self) -> bool:
        """False: the batch has failed."""
        errors, total = await self._check()
        if errors:
            await self._reach("failed", errors=tuple(errors))
            return False
        await self._reach("in_progress", total=total)
        return True

    async def _check(self) -> tuple[Sequence[LineError], int]:
        check, digest = Check(self.record.endpoint, self._tools.lines_max), hashlib.sha256()

        def read(lines: Sequence[bytes]) -> None:
            for line in lines:
                digest.update(line)
                if line.strip() and not check.hopeless:
                    check.feed(line)

        async for lines in self._tools.files.lines(self.record.input_file):
            await asyncio.to_thread(read, lines)
        check.end()
        _, file = await self._tools.shelf.get(FileRecord, self.record.input_file, self.record.tenant, "input_file_id")
        if not check.errors and digest.hexdigest() != file.sha256:
            return [LineError("corrupt_file", "the file is not what was uploaded")], 0
        return check.errors, check.lines

    # --- in progress ---

    async def _work(self) -> None:
        room = asyncio.Semaphore(self._tools.inflight)
        async with asyncio.TaskGroup() as tasks, aclosing(self._without_outcome()) as lines:
            async for number, line in lines:
                await room.acquire()
                if self._lines.halted:
                    return
                tasks.create_task(self._line(number, line)).add_done_callback(lambda _: room.release())

    async def _without_outcome(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """Lines that are still to end, with their numbers from 0 on; blank ones do not count."""
        number = -1
        async with aclosing(self._tools.files.lines(self.record.input_file)) as pages:
            async for page in pages:
                for line in page:
                    if line.strip():
                        number += 1
                        if number not in self._tally.seen and number < self.record.total:
                            yield number, line

    async def _line(self, number: int, text: bytes) -> None:
        line = batch_lines.read(text)
        reply = await self._lines.ask(bytes(line.body), number)
        if reply is None:
            return  # cut short with the batch: whoever ends the batch says so
        name = self._name(number)
        record = batch_lines.replied(name, line.custom_id, reply.status, reply.request_id, reply.body)
        await self._ended(number, record)

    async def _ended(self, number: int, record: bytes) -> None:
        first = await self._tools.outcomes.store(self.record.id, number, record)
        self._tally.add(number, record)  # else a gateway that was taken for dead was faster: what it stored counts
        if first:
            self._ended_here["output" if batch_lines.is_output(record) else "error"] += 1

    def _name(self, number: int) -> str:
        return f"batch_req_{self.record.id}_{number}"

    # --- finalizing ---

    async def _end(self) -> None:
        if self.record.status == "in_progress":
            ending = "completed" if len(self._tally.seen) >= self.record.total else "expired"
            await self._reach("finalizing", ending=ending)
        last: Status = "cancelled"
        if self.record.status != "cancelling":
            last = "completed" if self.record.ending == "completed" else "expired"
        await self._close_lines(last)
        output, error = await self._write_files()
        await self._reach(last, output_file=output, error_file=error)
        try:
            await self._tools.outcomes.purge(self.record.id)
        except Unavailable as failure:  # they go by their age
            log.warning("outcomes_not_purged", batch=self.record.id, why=str(failure))

    async def _close_lines(self, last: Status) -> None:
        """Lines that have no outcome get one that says so: afterwards there is one of each, and it stays."""
        if len(self._tally.seen) >= self.record.total:
            return
        trouble = Trouble(f"batch_{last}", f"the batch was {last} before this line had ended")
        async with aclosing(self._without_outcome()) as lines:
            async for number, line in lines:
                custom_id = batch_lines.read(line).custom_id
                await self._ended(number, batch_lines.unanswered(self._name(number), custom_id, trouble))

    async def _write_files(self) -> tuple[str, str]:
        """From the outcomes alone, in the order of their storing: whoever writes them writes the same."""
        tally, outputs, errors = Tally(), self._draft("output"), self._draft("error")

        def take(records: list[Record]) -> None:
            tally.take(records)
            for record in records:
                draft = outputs if batch_lines.is_output(record.data) else errors
                draft.write(batch_lines.line_of(record.data))

        try:
            await self._read_outcomes(take)
            assert len(tally.seen) == self.record.total, "each line has one outcome"
            self._tally = tally
            return await self._seal("output", outputs), await self._seal("error", errors)
        finally:
            outputs.discard()
            errors.discard()

    def _draft(self, kind: str) -> FileDraft:
        return self._tools.files.draft(_derived(self.record.id, kind))

    async def _seal(self, kind: str, draft: FileDraft) -> str:
        """The file's id; empty: there is nothing in it."""
        if not draft.size_bytes:
            return ""
        sealed = await draft.seal()
        batch, now_s, name = self.record, time.time(), f"batch_{self.record.id}_{kind}.jsonl"
        file = FileRecord(
            id=_derived(batch.id, kind),
            tenant=batch.tenant,
            filename=name,
            purpose="batch_output",
            size_bytes=sealed.size_bytes,
            sha256=sealed.sha256,
            created_s=now_s,
            expires_s=now_s + self._tools.kept_s,
        )
        while True:
            try:
                await self._tools.shelf.write(file, 0)
            except Stale:  # by a holder that has died since
                return file.id
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
            else:
                return file.id

    async def _read_outcomes(self, take: Callable[[list[Record]], None]) -> None:
        over = asyncio.Event()
        follower = self._tools.outcomes.follow(self.record.id, take, over.set)
        try:
            await over.wait()
        finally:
            await follower.stop()


def _derived(batch_id: str, kind: str) -> str:
    """The file's id follows from the batch: written twice it is one file."""
    return hashlib.sha256(f"{batch_id} {kind}".encode()).hexdigest()[:32]
