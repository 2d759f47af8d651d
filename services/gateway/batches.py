"""/v1/batches: many requests in one file, answered within a window, in a class that waits for others.

This file takes the orders; batch_crew.py decides which gateway works at which batch, batch_run.py does the work.
"""

import re
import secrets
import time
from collections.abc import Collection, Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.core.errors import Conflict, InvalidInput, Overloaded
from headrace.mesh.catalogue import Stale
from services.gateway.batch_records import BatchList, BatchRecord, BatchRequest, FileRecord, batch_object
from services.gateway.batch_shelf import Shelf
from services.gateway.batch_windows import Window
from services.gateway.chat_route import caller_of
from services.gateway.files import PAGE_DEFAULT, ends_of, json_reply, page_of, record_id_of
from services.gateway.front import Front
from services.gateway.http_reply import read_body

BATCHES_MAX = 1_000  # of one tenant, those that have ended included, until they are forgotten
METADATA_MAX, KEY_CHARS_MAX, VALUE_CHARS_MAX = 16, 64, 512  # OpenAI's
PAGE_MAX = 100
CANCEL_TRIES = 5  # its holder writes the same record every second
_FILE_ID, _BATCH_ID = re.compile(r"file-([0-9a-f]{32})"), re.compile(r"batch_([0-9a-f]{32})")
_decode = msgspec.json.Decoder(BatchRequest).decode


class BatchPages:
    def __init__(
        self,
        front: Front,
        shelf: Shelf,
        endpoints: Collection[str],
        windows: Mapping[str, Window],
        open_max: int,
        kept_s: float,
    ) -> None:
        """open_max: batches of one tenant that have not ended."""
        self._endpoints = endpoints
        self._front = front
        self._shelf = shelf
        self._windows = windows
        self._open_max = open_max
        self._kept_s = kept_s

    def routes(self) -> list[Route]:
        return [
            Route("/v1/batches", self.create, methods=["POST"]),
            Route("/v1/batches", self.list, methods=["GET"]),
            Route("/v1/batches/{batch_id}", self.get, methods=["GET"]),
            Route("/v1/batches/{batch_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        headers = dict(request.headers.raw)
        caller = caller_of(self._front, headers)
        tenant = caller.tenant
        asked = _read(await read_body(request.receive, headers))
        window = self._window(asked)
        input_file = record_id_of(asked.input_file_id, _FILE_ID, "input_file_id")
        seq, file = await self._shelf.get(FileRecord, input_file, tenant, "input_file_id")
        self._check_room(tenant)
        now_s = time.time()
        record = BatchRecord(
            id=secrets.token_hex(16),
            tenant=tenant,
            endpoint=asked.endpoint,
            input_file=file.id,
            window=window.name,
            slo_class=window.slo_class,
            created_s=now_s,
            deadline_s=now_s + window.seconds,
            metadata=asked.metadata or {},
            key=caller.key.id,
        )
        await self._keep(file, seq, record.deadline_s)
        await self._shelf.write(record, 0)
        return json_reply(batch_object(record))

    async def _keep(self, file: FileRecord, seq: int, until_s: float) -> None:
        """The input outlives its batch by as long as any file is kept."""
        expires_s = until_s + self._kept_s
        try:
            await self._shelf.write(msgspec.structs.replace(file, expires_s=expires_s), seq)
        except Stale as error:
            raise Conflict("the file has just been changed; ask again", field="input_file_id") from error

    def _window(self, asked: BatchRequest) -> Window:
        if asked.endpoint not in self._endpoints:
            raise InvalidInput(f"endpoint must be one of {', '.join(self._endpoints)}", field="endpoint")
        window = self._windows.get(asked.completion_window)
        if window is None:
            known = ", ".join(self._windows)
            raise InvalidInput(f"completion_window must be one of {known}", field="completion_window")
        return window

    def _check_room(self, tenant: str) -> None:
        mine = self._shelf.of_tenant(BatchRecord, tenant)
        unfinished = sum(batch.open for batch in mine)
        if unfinished >= self._open_max:
            raise Overloaded(f"{unfinished} batches have not ended; at most {self._open_max}", retry_after_s=60.0)
        if len(mine) >= BATCHES_MAX:
            raise Overloaded(f"{len(mine)} batches are kept already; at most {BATCHES_MAX}", retry_after_s=60.0)

    async def list(self, request: Request) -> Response:
        tenant = caller_of(self._front, dict(request.headers.raw)).tenant
        every = self._shelf.of_tenant(BatchRecord, tenant)
        page, more = page_of(every, request, PAGE_DEFAULT, PAGE_MAX, _BATCH_ID)
        shown = [batch_object(batch) for batch in page]
        return json_reply(BatchList(shown, more, *ends_of([one.id for one in shown])))

    async def get(self, request: Request) -> Response:
        return json_reply(batch_object((await self._find(request))[1]))

    async def cancel(self, request: Request) -> Response:
        """What has been answered stays answered; a batch that is over, or nearly, is told as it is."""
        for _ in range(CANCEL_TRIES):
            seq, record = await self._find(request)
            if record.status not in ("validating", "in_progress"):
                return json_reply(batch_object(record))
            times = {**record.times, "cancelling": time.time()}
            cancelled = msgspec.structs.replace(record, status="cancelling", times=times)
            try:
                await self._shelf.write(cancelled, seq)
            except Stale:
                await self._shelf.fresh(record.id)
                continue
            return json_reply(batch_object(cancelled))
        raise Conflict("the batch changes as it is cancelled; ask again", field="batch_id")

    async def _find(self, request: Request) -> tuple[int, BatchRecord]:
        tenant = caller_of(self._front, dict(request.headers.raw)).tenant
        record_id = record_id_of(request.path_params["batch_id"], _BATCH_ID, "batch_id")
        return await self._shelf.get(BatchRecord, record_id, tenant, "batch_id")


def _read(body: bytes) -> BatchRequest:
    try:
        asked = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a batch: {error}", field="body") from error
    metadata = asked.metadata or {}
    if len(metadata) > METADATA_MAX:
        raise InvalidInput(f"{len(metadata)} entries; at most {METADATA_MAX}", field="metadata")
    if any(len(key) > KEY_CHARS_MAX or len(value) > VALUE_CHARS_MAX for key, value in metadata.items()):
        message = f"keys have at most {KEY_CHARS_MAX} characters, values {VALUE_CHARS_MAX}"
        raise InvalidInput(message, field="metadata")
    return asked
