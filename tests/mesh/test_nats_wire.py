"""The frame reader: any split of the byte stream delivers the same messages; junk is refused."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from headrace.mesh import nats_wire

Message = tuple[bytes, bytes, bytes, bytes]


class Connection:
    """Writes down what the reader asks for besides messages."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def on_ping(self) -> None:
        self.calls.append("ping")

    async def on_pong(self) -> None:
        self.calls.append("pong")

    async def on_info(self, info: bytes) -> None:
        self.calls.append("info " + info.decode())

    async def on_error(self, error: str) -> None:
        self.calls.append("error " + error)


def read(chunks: list[bytes]) -> tuple[list[Message], list[str], list[Exception]]:
    connection, got, failures = Connection(), list[Message](), list[Exception]()
    reader = nats_wire.Reader(connection, lambda _subject, error: failures.append(error))

    def on_message(subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        if data == b"poison":
            raise RuntimeError("handler bug")
        got.append((subject, reply, head, data))

    reader.handlers[b"7"] = on_message

    async def feed() -> None:
        for chunk in chunks:
            await reader.parse(chunk)

    asyncio.run(feed())
    return got, connection.calls, failures


def frame(subject: bytes, reply: bytes, head: bytes, data: bytes) -> bytes:
    to = subject + b" 7" + (b" " + reply if reply else b"")
    if head:
        return b"HMSG %b %d %d\r\n%b\r\n" % (to, len(head), len(head) + len(data), head + data)
    return b"MSG %b %d\r\n%b\r\n" % (to, len(data), data)


HEAD = nats_wire.header_block({"traceparent": "00-ab-cd-01", "Nats-Msg-Id": "x"})
messages = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"hr.v1.work.decode-0"]),
        st.sampled_from([b"", b"_INBOX.x.1"]),
        st.sampled_from([b"", HEAD]),
        st.binary(max_size=80) | st.sampled_from([b"\r\n", b"MSG a 7 1\r\n", b""]),
    ),
    max_size=8,
)


@given(messages, st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_delivers_the_same(sent: list[Message], cuts: list[int]) -> None:
    stream = b"PING\r\n".join(frame(*message) for message in sent)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    got, calls, failures = read(chunks)
    assert got == sent
    assert calls == ["ping"] * max(0, len(sent) - 1)
    assert not failures


def test_control_lines() -> None:
    _, calls, _ = read([b'INFO {"a":1} \r\nPONG\r\n+OK\r\n', b"-ERR 'Stale", b" Connection'\r\n"])
    assert calls == ['info {"a":1} ', "pong", "error Stale Connection"]


def test_a_failing_handler_costs_its_message_alone() -> None:
    got, _, failures = read([frame(b"a", b"", b"", b"poison") + frame(b"a", b"", b"", b"fine")])
    assert [data for *_, data in got] == [b"fine"]
    assert [str(error) for error in failures] == ["handler bug"]


def test_an_unknown_subscription_is_skipped() -> None:
    got, _, _ = read([b"MSG a 8 2\r\nxx\r\n", frame(b"a", b"", b"", b"y")])
    assert [data for *_, data in got] == [b"y"]


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad\r\n", b"x" * (1 << 17)])
def test_what_is_not_nats_is_refused(junk: bytes) -> None:
    with pytest.raises(ProtocolError):
        read([junk])


def test_headers_there_and_back() -> None:
    assert nats_wire.parse_headers(HEAD) == {"traceparent": "00-ab-cd-01", "Nats-Msg-Id": "x"}
    assert nats_wire.header(HEAD, b"traceparent") == b"00-ab-cd-01"
    assert nats_wire.header(HEAD, b"absent") == b""
    assert nats_wire.status(b"NATS/1.0 503\r\n\r\n") == 503
    assert nats_wire.status(HEAD) == 0


@pytest.mark.parametrize("headers", [{"a": "x\r\nPUB b 0"}, {"a b": "x"}, {"a:": "x"}])
def test_headers_cannot_break_the_frame(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        nats_wire.header_block(headers)
