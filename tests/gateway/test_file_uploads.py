"""/v1/files over HTTP: what comes back is what was sent, to its tenant alone, within its bounds."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, ConflictError, NotFoundError, RateLimitError

from headrace.core.errors import InvalidInput
from headrace.mesh import servers
from services.gateway.auth import Keys
from services.gateway.multipart import Field, fields_of
from tests.gateway.batching import Office, begin, jsonl, line, office, upload
from tests.gateway.conftest import Edges, Options
from tests.gateway.standin import StandIn

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of these tests alone: records stay, and a gateway takes every batch that it sees."""
    server = servers.nats_server(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
async def desk(edges: Edges, tmp_path: Path) -> AsyncIterator[Office]:
    async with office(await edges.start(), tmp_path, files_bytes=1 << 20) as running:
        yield running


async def test_the_openai_client_uploads_lists_reads_and_deletes(desk: Office) -> None:
    data = bytes(range(256)) * 100
    async with AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="x", max_retries=0) as client:
        made = await client.files.create(file=("a b.jsonl", data), purpose="batch")
        other = await client.files.create(file=io.BytesIO(b"{}\n"), purpose="batch")
        assert (made.bytes, made.filename, made.purpose, made.status) == (25_600, "a b.jsonl", "batch", "processed")
        assert made.expires_at is not None
        assert made.expires_at - made.created_at == 7 * 86_400
        assert {one.id for one in (await client.files.list()).data} >= {made.id, other.id}
        assert await client.files.retrieve(made.id) == made
        assert (await client.files.content(made.id)).content == data
        assert (await client.files.delete(made.id)).deleted
        with pytest.raises(NotFoundError):
            await client.files.content(made.id)
        with pytest.raises(NotFoundError):
            await client.files.retrieve("file-" + "0" * 32)


async def test_pages(desk: Office) -> None:
    for number in range(3):
        await upload(desk.http, b"x", f"{number}.jsonl")
    names, after = [], ""
    while True:
        query: dict[str, str] = {"limit": "2", "order": "asc", "after": after}
        page = (await desk.http.get("/v1/files", params=query)).json()
        names += [one["filename"] for one in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert names[-3:] == ["0.jsonl", "1.jsonl", "2.jsonl"]
    for wrong in ("0", "-1", "\N{SUPERSCRIPT TWO}", "9" * 5_000):
        reply = await desk.http.get("/v1/files", params={"limit": wrong})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "limit"), wrong[:9]


async def test_a_file_belongs_to_its_tenant(edges: Edges, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("key-a ann\nkey-b bob\n")
    edge = await edges.start("gw-k", Options(keys=Keys.read(str(tmp_path / "keys"))))
    ann, bob = {"authorization": "Bearer key-a"}, {"authorization": "Bearer key-b"}
    async with office(edge, tmp_path) as desk:
        file = await upload(desk.http, b"secret", **ann)
        for path in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content"):
            assert [(await desk.http.get(path, headers=who)).status_code for who in (ann, bob, {})] == [200, 404, 401]
        assert (await desk.http.get("/v1/files", headers=bob)).json()["data"] == []
        assert (await desk.http.delete(f"/v1/files/{file['id']}", headers=bob)).status_code == 404
        body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        assert (await desk.http.post("/v1/batches", json=body, headers=bob)).status_code == 404


async def test_bounds(desk: Office) -> None:
    async with AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="x", max_retries=0) as client:
        await client.files.create(file=b"x" * 600_000, purpose="batch")
        with pytest.raises(RateLimitError, match="1048576 bytes"):
            await client.files.create(file=b"x" * 600_000, purpose="batch")
    reader, writer = await asyncio.open_connection(desk.http.base_url.host, desk.http.base_url.port)
    writer.write(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\nexpect: 100-continue\r\n\r\n")
    assert b" 413 " in await reader.readline()
    writer.close()


REFUSED = {
    "no purpose": ({}, {"file": b"x"}, "purpose"),
    "another purpose": ({"purpose": "assistants"}, {"file": b"x"}, "purpose"),
    "no file": ({"purpose": "batch"}, {"other": b"x"}, "file"),
    "another field": ({"purpose": "batch", "colour": "red"}, {"file": b"x"}, "colour"),
}


@pytest.mark.parametrize(("data", "files", "field"), REFUSED.values(), ids=REFUSED)
async def test_refused(desk: Office, data: dict[str, str], files: dict[str, bytes], field: str) -> None:
    reply = await desk.http.post("/v1/files", data=data, files=files)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)


async def test_the_input_of_an_open_batch_stays(desk: Office, cell: StandIn) -> None:
    cell.silent = True
    batch = await begin(desk.http, jsonl([line(0)]))
    async with AsyncOpenAI(base_url=f"{desk.url}/v1", api_key="x", max_retries=0) as client:
        with pytest.raises(ConflictError, match="has not ended"):
            await client.files.delete(batch["input_file_id"])
        await client.batches.cancel(batch["id"])


async def test_what_expires_is_gone_and_its_content_swept(edges: Edges, tmp_path: Path) -> None:
    edge = await edges.start()
    async with office(edge, tmp_path, batch_kept_s=1.0) as desk:
        file = await upload(desk.http, b"soon gone")
        path = tmp_path / "files" / file["id"].removeprefix("file-")
        assert path.read_bytes() == b"soon gone"
        await asyncio.sleep(1.1)
        assert (await desk.http.get(f"/v1/files/{file['id']}")).status_code == 404
        await desk.desk.sweep()
        assert not path.exists()


# --- multipart ---

names = st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n', exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(names, st.binary(max_size=60), st.one_of(st.just(""), names)), min_size=1, max_size=5))
def test_multipart_reads_what_was_written(fields: list[tuple[str, bytes, str]]) -> None:
    mark, body = b"--frontier", b""
    for name, data, filename in fields:
        more = f'; filename="{filename}"' if filename else ""
        body += mark + f'\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"
    body += mark + b"--\r\n"
    assert fields_of(b"multipart/form-data; boundary=frontier", body) == [Field(*field) for field in fields]


@given(st.binary(max_size=200))
def test_multipart_refuses_by_its_own_error_alone(body: bytes) -> None:
    for content in (body, b"--x\r\n" + body, b"--x\r\n\r\n" + body + b"\r\n--x--"):
        try:
            fields_of(b"multipart/form-data; boundary=x", content)
        except InvalidInput:
            continue
