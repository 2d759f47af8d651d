"""The SDK against a real gateway over a real NATS: answers, errors, leaving, and connections that break."""

import asyncio
import io
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from PIL import Image as Pixels

from headrace.client import (
    AsyncClient,
    AsyncStream,
    Cancelled,
    Client,
    ContextTooLong,
    DeadlineExceeded,
    HeadraceError,
    Image,
    InvalidInput,
    Message,
    ModelNotFound,
    NotFound,
    Overloaded,
    StageError,
    Unavailable,
    UnsupportedModality,
)
from headrace.client.protocol import Answer
from headrace.core.types import End, Failure
from headrace.v1 import common_pb2, gateway_pb2
from headrace.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.gateway.conftest import Edge, Edges, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(60)


def picture() -> bytes:
    out = io.BytesIO()
    Pixels.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


async def test_async_answer(edge: Edge) -> None:
    async with AsyncClient(edge.grpc, trace=True) as client:
        answer = client.generate("hi")
        deltas = [delta async for delta in answer]
    assert "".join(delta.text for delta in deltas) == "hello"
    assert [token for delta in deltas for token in delta.tokens] == list(b"hello")
    assert answer.end is not None
    assert (answer.end.reason, answer.usage.completion_tokens) == ("stop", 5)
    assert [stage.stage for stage in answer.timeline] == ["gateway", "admit", "queue", "prefill"]
    assert len(answer.request_id) == len(answer.trace_id) == 32


async def test_sync_answer(edge: Edge) -> None:
    def use() -> tuple[str, int, list[str]]:
        with Client(edge.grpc) as client:
            answer = client.generate("hi", max_tokens=20)
            return answer.text(), answer.usage.completion_tokens, [model.id for model in client.models()]

    assert await asyncio.to_thread(use) == ("hello", 5, ["profile-tiny"])


async def test_images_and_turns(edge: Edge, cell: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    turns = [Message("user", ["see", Image(picture())]), Message("assistant", "yes"), Message("user", "and?")]
    async with AsyncClient(edge.grpc) as client:
        await client.generate("what?", images=[path, picture()]).text()
        one = cell.requests[-1]
        await client.generate(turns, images=[str(path)], temperature=0.5, stop=["\n"], slo_class="batch-1").text()
        two = cell.requests[-1]
    assert (len(one.media), one.slo_class, one.sampling.temperature) == (2, "interactive", 0.0)
    assert (len(two.media), two.slo_class, two.sampling.stop) == (2, "batch-1", ("\n",))
    assert two.sampling.seed != 0


async def collect(answer: AsyncStream, into: list[str]) -> None:
    async for delta in answer:
        into.append(delta.text)


ERRORS = [
    ({"model": "gpt-9"}, ModelNotFound, "model"),
    ({"max_tokens": 100_000}, ContextTooLong, "sampling.max_tokens"),
    ({"temperature": 9.0}, InvalidInput, "sampling.temperature"),
    ({"images": [b"nonsense"]}, InvalidInput, "messages[0].content[0].media.data"),
]


@pytest.mark.parametrize(("options", "kind", "field"), ERRORS, ids=[field for _, _, field in ERRORS])
async def test_errors_have_types_and_fields(
    edge: Edge, options: dict[str, object], kind: type[HeadraceError], field: str
) -> None:
    async with AsyncClient(edge.grpc) as client:
        with pytest.raises(kind) as caught:
            await client.generate("hi", **options).text()  # type: ignore[arg-type]
    assert (type(caught.value), caught.value.field) == (kind, field)


ENDS = [
    (End("error", Failure("stage_error", "boom")), StageError),
    (End("error", Failure("unsupported_modality", "no")), UnsupportedModality),
    (End("deadline"), DeadlineExceeded),
    (End("cancelled"), Cancelled),
]


@pytest.mark.parametrize("tokens", [b"", b"ab"])
@pytest.mark.parametrize(("end", "kind"), ENDS, ids=[kind.__name__ for _, kind in ENDS])
async def test_ends_that_are_no_answers(
    edge: Edge, cell: StandIn, end: End, kind: type[HeadraceError], tokens: bytes
) -> None:
    cell.script = lambda _: Script(tuple(tokens), end)
    async with AsyncClient(edge.grpc) as client:
        answer, got = client.generate("hi"), list[str]()
        with pytest.raises(kind):
            await collect(answer, got)
    assert "".join(got) == tokens.decode()
    assert answer.end is not None
    assert answer.end.reason == end.reason


async def test_overload_is_retried_until_there_is_room(edge: Edge, cell: StandIn) -> None:
    ends = iter([End("error", Failure("overloaded", "full", "", 0.05))])
    cell.script = lambda _: Script((), next(ends)) if not cell.requests[1:] else Script()
    async with AsyncClient(edge.grpc) as client:
        with pytest.raises(Overloaded):
            await client.generate("hi").text()
    cell.queue_limit = cell.queued = 5
    await until(lambda: (c := edge.front.gateway.cell) and c.classes["interactive"].limit == 5)
    async with AsyncClient(edge.grpc) as client:
        waiting = asyncio.ensure_future(client.generate("hi").text())
        await asyncio.sleep(0.3)
        cell.queued = 0
        async with asyncio.timeout(10):
            assert await waiting == "hello"


# --- leaving ---


async def test_cancel(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 500), wait_s=0.02)
    async with AsyncClient(edge.grpc) as client:
        answer = client.generate("hi")
        async for _ in answer:
            if answer.end is None:
                await answer.cancel()
        assert answer.end is not None
        assert answer.end.reason == "cancelled"


async def test_what_it_cancelled_itself_is_no_error() -> None:
    """As workers tell it: the end holds a failure, too."""
    mine, others = Answer(None, "a" * 32), Answer(None, "b" * 32)
    mine.cancelled = True
    failure = common_pb2.Failure(code="cancelled", message="the request was cancelled")
    end = common_pb2.End(reason=common_pb2.FINISH_REASON_CANCELLED, failure=failure)
    for answer in (mine, others):
        answer.take(gateway_pb2.GenerateEvent(end=end))
    assert mine.error is None
    assert isinstance(others.error, Cancelled)


async def test_closing_early_cancels_within_a_second(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 500), wait_s=0.02)
    async with AsyncClient(edge.grpc) as client:
        async with client.generate("hi") as answer:
            async for _ in answer:
                break
        await until(lambda: f"cancel {answer.request_id}" in cell.heard, 1.0)
        await until(lambda: len(edge.front.gateway.streams) == 0, 1.0)


async def test_a_deadline_ends_the_request(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 500), wait_s=0.02)
    request = gateway_pb2.GenerateRequest(
        messages=[gateway_pb2.Message(role="user", content=[gateway_pb2.ContentPart(text="hi")])]
    )
    async with grpc.aio.insecure_channel(edge.grpc) as channel:
        stub: Any = GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError):
            [event async for event in stub.Generate(request, timeout=0.5)]
    (accepted,) = cell.requests
    assert accepted.deadline_s - accepted.accepted_s <= 0.501, "gRPC carries a time-out from clock to clock, to the ms"
    await until(lambda: f"cancel {accepted.id} deadline" in cell.heard, 1.5)


# --- attaching ---


async def test_attach_anywhere_from_anywhere(edge: Edge, edges: Edges, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"abcdef"), wait_s=0.05)
    other = await edges.start("gw-b")
    async with AsyncClient(edge.grpc) as client, AsyncClient(other.grpc) as elsewhere:
        answer = client.generate("hi", keep_on_disconnect=True)
        async for _ in answer:
            break
        assert await elsewhere.attach(answer.request_id, 2).text() == "cdef"
        await until(lambda: not cell.running)
        assert await elsewhere.attach(answer.request_id).text() == "abcdef"
        with pytest.raises(NotFound):
            await elsewhere.attach("0" * 32).text()
        assert not await elsewhere.cancel("0" * 32)


class Cable:
    """A TCP relay that can be cut: what a gateway's death looks like to its client."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_cut = False

    async def plug(self) -> str:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        self._writers += [writer, far_writer]
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(self._pump(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
        except OSError:
            return
        finally:
            target.close()

    def cut(self) -> None:
        assert self._server is not None
        self.is_cut = True
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


async def test_a_broken_stream_goes_on_at_another_gateway(edge: Edge, edges: Edges, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(bytes(range(97, 123)) * 3), wait_s=0.02)
    other, cable = await edges.start("gw-b"), Cable(edge.grpc)
    async with AsyncClient([await cable.plug(), other.grpc]) as client:
        answer = client.generate("hi", keep_on_disconnect=True)
        tokens: list[int] = []
        async for delta in answer:
            tokens += delta.tokens
            if len(tokens) >= 10 and not cable.is_cut:
                cable.cut()
    assert bytes(tokens) == bytes(range(97, 123)) * 3
    assert len(cell.requests) == 1
    assert any(heard.startswith("attach") for heard in cell.heard)


async def test_a_request_that_reached_nobody_is_sent_elsewhere(edge: Edge, cell: StandIn) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{closed.getsockname()[1]}"
        async with AsyncClient(f"{nowhere},{edge.grpc}") as client:
            assert await client.generate("hi").text() == "hello"
            assert [model.id for model in await client.models()] == ["profile-tiny"]
    assert len(cell.requests) == 1


async def test_nobody_there_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.client.protocol.TRIES_MAX", 2)
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(Unavailable):
            await client.generate("hi").text()


def test_needs_grpcio_and_protobuf_alone() -> None:
    """A fresh interpreter: importing the SDK brings in nothing of the server's."""
    heavy = "numpy nats redis starlette uvicorn msgspec httpx opentelemetry onnxruntime PIL headrace.core headrace.mesh"
    code = f"import sys, headrace.client; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_nobody_comes_back_less_than_never(client: type[Client] | type[AsyncClient]) -> None:
    with pytest.raises(InvalidInput, match="max_retries"):
        client("127.0.0.1:1", max_retries=-1)
