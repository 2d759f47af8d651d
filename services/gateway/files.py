"""/v1/files: what a batch reads is uploaded here, and what it wrote is fetched. A file belongs to one tenant.

The content is on disk, synced, before its record is written; a file without a record is nobody's and is swept.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Sequence
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headrace.core.errors import Conflict, InvalidInput, Overloaded, PayloadTooLarge
from headrace.mesh.catalogue import Stale
from headrace.mesh.files import FileStore
from services.gateway.batch_records import (
    BatchRecord,
    FileDeleted,
    FileList,
    FileRecord,
    encode,
    file_id,
    file_object,
)
from services.gateway.batch_shelf import Shelf
from services.gateway.chat_route import caller_of
from services.gateway.front import Front
from services.gateway.http_reply import discard, read_body
from services.gateway.multipart import Field, fields_of

PURPOSE = "batch"
FILES_MAX = 1_000  # of one tenant, those that batches wrote included
NAME_CHARS_MAX = 256
PAGE_DEFAULT, PAGE_MAX = 20, 10_000
_FILE_ID = re.compile(r"file-([0-9a-f]{32})")

T = TypeVar("T", FileRecord, BatchRecord)


class FilePages:
    def __init__(self, front: Front, shelf: Shelf, files: FileStore, bytes_max: int, kept_s: float) -> None:
        """bytes_max: of one tenant."""
        self._front = front
        self._shelf = shelf
        self._files = files
        self._bytes_max = bytes_max
        self._kept_s = kept_s

    def routes(self) -> list[Route]:
        return [
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files", self.list, methods=["GET"]),
            Route("/v1/files/{file_id}", self.get, methods=["GET"]),
            Route("/v1/files/{file_id}", self.delete, methods=["DELETE"]),
            Route("/v1/files/{file_id}/content", self.content, methods=["GET"]),
        ]

    async def upload(self, request: Request) -> Response:
        headers = dict(request.headers.raw)
        tenant = caller_of(self._front, headers).tenant
        try:
            body = await read_body(request.receive, headers)
        except PayloadTooLarge:
            await discard(request.receive, headers)
            raise
        file = _file_of(await asyncio.to_thread(fields_of, headers.get(b"content-type", b""), body))
        self._check_room(tenant, len(file.data))
        record_id, now_s = secrets.token_hex(16), time.time()
        sealed = await self._files.put(record_id, file.data)
        name = file.filename[:NAME_CHARS_MAX] or "input.jsonl"
        record = FileRecord(
            id=record_id,
            tenant=tenant,
            filename=name,
            purpose=PURPOSE,
            size_bytes=sealed.size_bytes,
            sha256=sealed.sha256,
            created_s=now_s,
            expires_s=now_s + self._kept_s,
        )
        await self._shelf.write(record, 0)
        return json_reply(file_object(record))

    def _check_room(self, tenant: str, size_bytes: int) -> None:
        mine = self._shelf.of_tenant(FileRecord, tenant)
        if len(mine) >= FILES_MAX:
            raise Overloaded(f"there are {len(mine)} files already; delete some", field="file")
        if sum(file.size_bytes for file in mine) + size_bytes > self._bytes_max:
            raise Overloaded(f"all files together would have more than {self._bytes_max} bytes; delete some")

    async def list(self, request: Request) -> Response:
        tenant = caller_of(self._front, dict(request.headers.raw)).tenant
        purpose = request.query_params.get("purpose", "")
        every = [file for file in self._shelf.of_tenant(FileRecord, tenant) if purpose in ("", file.purpose)]
        if request.query_params.get("order") == "asc":
            every.reverse()
        page, more = page_of(every, request, PAGE_MAX, PAGE_MAX, _FILE_ID)
        shown = [file_object(file) for file in page]
        return json_reply(FileList(shown, more, *ends_of([one.id for one in shown])))

    async def get(self, request: Request) -> Response:
        return json_reply(file_object((await self._find(request))[1]))

    async def content(self, request: Request) -> Response:
        _, record = await self._find(request)
        length = {"content-length": str(record.size_bytes)}
        chunks = self._files.chunks(record.id)
        if not self._files.has(record.id):
            await anext(chunks)  # raises NotFound
        return StreamingResponse(chunks, media_type="application/octet-stream", headers=length)

    async def delete(self, request: Request) -> Response:
        seq, record = await self._find(request)
        if record.id in {batch.input_file for _, batch in self._shelf.unfinished()}:
            raise Conflict("a batch that has not ended reads this file", field="file_id")
        try:
            await self._shelf.write(_deleted(record), seq)
        except Stale as error:
            raise Conflict("the file has just been changed; ask again", field="file_id") from error
        await self._files.drop(record.id)
        return json_reply(FileDeleted(file_id(record.id)))

    async def _find(self, request: Request) -> tuple[int, FileRecord]:
        tenant = caller_of(self._front, dict(request.headers.raw)).tenant
        record_id = record_id_of(request.path_params["file_id"], _FILE_ID, "file_id")
        return await self._shelf.get(FileRecord, record_id, tenant, "file_id")


def _deleted(record: FileRecord) -> FileRecord:
    return FileRecord(
        record.id, record.tenant, record.filename, record.purpose, 0, "", record.created_s, record.expires_s, True
    )


def _file_of(fields: Sequence[Field]) -> Field:
    purposes = [field.data.decode("utf-8", "replace") for field in fields if field.name == "purpose"]
    if purposes != [PURPOSE]:
        raise InvalidInput("purpose: only 'batch' is known here", field="purpose")
    files = [field for field in fields if field.name == "file"]
    if len(files) != 1:
        raise InvalidInput("want one part with the name 'file'", field="file")
    for field in fields:
        if field.name not in ("purpose", "file") and not field.name.startswith("expires_after"):
            raise InvalidInput(f"{field.name[:64]!r} is not known", field=field.name[:64])
        if field.name.startswith("expires_after"):
            raise InvalidInput("expires_after: files are kept as long as the server is configured to", field=field.name)
    return files[0]


# --- shared with batches ---


def json_reply(body: object) -> Response:
    return Response(encode(body), media_type="application/json")


def record_id_of(name: str, pattern: re.Pattern[str], field: str) -> str:
    """Only what can be an id reaches the bus."""
    found = pattern.fullmatch(name)
    if found is None:
        raise InvalidInput(f"{name[:64]!r} is not an id of this kind", field=field)
    return found.group(1)


def page_of(
    every: Sequence[T], request: Request, default: int, most: int, ids: re.Pattern[str]
) -> tuple[list[T], bool]:
    """The page that `after` and `limit` ask for, and whether there is more behind it."""
    query = request.query_params
    limit = query.get("limit", str(default))
    if not re.fullmatch(r"[0-9]{1,9}", limit) or not 1 <= int(limit) <= most:
        raise InvalidInput(f"limit is a number from 1 to {most}", field="limit")
    begin = 0
    if after := query.get("after"):
        record_id = record_id_of(after, ids, "after")
        places = [at for at, record in enumerate(every) if record.id == record_id]
        if not places:
            raise InvalidInput("after: no such id in this list", field="after")
        begin = places[0] + 1
    end = begin + int(limit)
    return list(every[begin:end]), end < len(every)


def ends_of(ids: Sequence[str]) -> tuple[str | None, str | None]:
    return (ids[0], ids[-1]) if ids else (None, None)
