"""NATS and Redis with credentials, certificates and permissions, on the real servers; what each role cannot do."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.cli import credentials
from headrace.core.errors import Unavailable
from headrace.mesh import permissions, subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup, Uncertain
from headrace.mesh.journal import Journal
from headrace.mesh.login import NatsLogin, shown
from headrace.mesh.servers import NatsServer, RedisServer, nats_server, redis_server
from headrace.mesh.store import Store
from headrace.mesh.tls import Tls

CALLS_S = 0.3


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    credentials.prepare(directory)
    return directory


@pytest.fixture(scope="module")
def guarded(held: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = nats_server(tmp_path_factory.mktemp("nats"), door=credentials.nats_door(held))
    server.start()
    yield server
    server.stop()


def settings(held: Path, service: str, **changes: str) -> Settings:
    return Settings.from_env(credentials.environment(held, f"services.{service}") | changes)


@asynccontextmanager
async def member(held: Path, server: NatsServer, service: str) -> AsyncIterator[Bus]:
    bus = await Bus.open(settings(held, service, HEADRACE_NATS_URL=server.url), service.replace("_", "-"))
    try:
        yield bus
    finally:
        await bus.close()


async def heard(held: Path, server: NatsServer, speaker: str, listener: str, subject: str) -> bool:
    """Whether what one says there reaches the other."""
    got = asyncio.Event()
    async with member(held, server, speaker) as out, member(held, server, listener) as ear:
        await ear.subscribe(subject, lambda _data, _headers: got.set())
        await ear.flush()
        out.send(subject, b"x")
        await out.flush()
        try:
            async with asyncio.timeout(CALLS_S):
                await got.wait()
        except TimeoutError:
            return False
    return True


@pytest.mark.parametrize(
    ("speaker", "listener", "subject", "allowed"),
    [
        ("governor", "prefill", subjects.CAPS, True),
        ("decode", "prefill", subjects.CAPS, False),
        ("gateway", "prefill", subjects.CAPS, False),
        ("queue_manager", "decode", subjects.work("decode-0"), True),
        ("prefill", "decode", subjects.work("decode-0"), False),
        ("governor", "decode", subjects.work("decode-0"), False),
        ("gateway", "decode", subjects.work("decode-0"), False),
        ("prefill", "decode", subjects.peer("decode-0"), True),
        ("gateway", "decode", subjects.peer("decode-0"), False),
        ("decode", "gateway", subjects.tokens("gateway-0"), True),
        ("governor", "gateway", subjects.tokens("gateway-0"), False),
        ("decode", "queue_manager", subjects.EVENTS, True),
        ("gateway", "queue_manager", subjects.EVENTS, False),
        ("gateway", "queue_manager", subjects.CONTROL, True),
        ("encoder", "queue_manager", subjects.CONTROL, False),
        ("queue_manager", "gateway", subjects.STATUS, True),
        ("decode", "gateway", subjects.STATUS, False),
        ("encoder", "supervisor", subjects.SCALE, False),
        ("queue_manager", "decode", subjects.tokens("gateway-0"), False),  # nor may a worker listen to others' answers
    ],
)
async def test_who_may_say_what(
    held: Path, guarded: NatsServer, speaker: str, listener: str, subject: str, allowed: bool
) -> None:
    assert await heard(held, guarded, speaker, listener, subject) is allowed


@pytest.mark.parametrize("service", ["decode", "governor", "supervisor"])
@pytest.mark.parametrize("call", ["STREAM.INFO.REQUESTS", "STREAM.DELETE.REQUESTS", "STREAM.PURGE.RESULTS"])
async def test_streams_are_not_theirs(held: Path, guarded: NatsServer, service: str, call: str) -> None:
    async with member(held, guarded, service) as bus:
        with pytest.raises(Uncertain):
            await bus.request(f"$JS.API.{call}", b"", CALLS_S)


async def test_a_gateway_makes_and_reads_streams_and_deletes_none(held: Path, guarded: NatsServer) -> None:
    async with member(held, guarded, "gateway") as bus:
        journal = await Journal.open(bus, settings(held, "gateway"))
        assert not (await journal.append("0" * 32, b"record")).duplicate
        assert await journal.record("0" * 32) == b"record"
        for call in (
            "STREAM.DELETE.REQUESTS",
            "STREAM.PURGE.REQUESTS",
            "STREAM.MSG.DELETE.REQUESTS",
            "STREAM.UPDATE.RESULTS",
        ):
            with pytest.raises(Uncertain):
                await bus.request(f"$JS.API.{call}", b"", CALLS_S)
        assert await journal.record("0" * 32) == b"record"


async def test_the_autoscaler_is_answered_by_who_starts_workers(held: Path, guarded: NatsServer) -> None:
    async with member(held, guarded, "supervisor") as starter, member(held, guarded, "queue_manager") as asker:

        async def answer(data: bytes) -> bytes:
            return data

        await starter.respond(subjects.SCALE, answer)
        await starter.flush()
        assert await asker.request(subjects.SCALE, b"order", 2.0) == b"order"


async def test_replies_are_read_by_their_role_alone(held: Path, guarded: NatsServer) -> None:
    overheard = []
    async with member(held, guarded, "decode") as spy, member(held, guarded, "queue_manager") as asker:
        for inbox in ("_INBOX.>", "_INBOX.queue_manager.>", ">", "hr.v1.>"):
            await spy.subscribe(inbox, lambda data, _headers: overheard.append(data))
        async with member(held, guarded, "gateway") as gateway:

            async def answer(data: bytes) -> bytes:
                return data + b"!"

            await gateway.respond(subjects.held("gateway-0"), answer)
            await gateway.flush()
            assert await asker.request(subjects.held("gateway-0"), b"who", 2.0) == b"who!"
    assert overheard == []


@pytest.mark.parametrize(
    ("user", "password", "certified"),
    [("gateway", "wrong", True), ("", "", True), ("nobody", "x", True), ("gateway", "", False)],
)
async def test_nobody_else_gets_in(
    held: Path, guarded: NatsServer, user: str, password: str, certified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.mesh.bus.CONNECT_WAIT_S", 1.0)
    login = NatsLogin.of(settings(held, "gateway", HEADRACE_NATS_URL=guarded.url))
    if certified:
        login = replace(login, user=user, password=password)
    else:
        login = replace(login, context=ssl.create_default_context(cafile=str(held / "ca.crt")))
    with pytest.raises(BadSetup) as refused:
        await Bus.connect(guarded.url, "stranger", login=login)
    assert "wrong" not in str(refused.value)


async def test_a_server_of_another_authority_is_not_believed(
    held: Path, guarded: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.mesh.bus.CONNECT_WAIT_S", 1.0)
    credentials.prepare(tmp_path / "other")
    with pytest.raises(BadSetup):
        await Bus.open(settings(tmp_path / "other", "gateway", HEADRACE_NATS_URL=guarded.url), "gateway-0")


def test_no_password_is_ever_printed(held: Path) -> None:
    login = NatsLogin.of(settings(held, "worker", HEADRACE_NATS_URL="tls://127.0.0.1:1"))
    assert login.password
    assert login.password not in repr(login)


# --- Redis ---


@pytest.fixture
def guarded_redis(held: Path, tmp_path: Path) -> Iterator[RedisServer]:
    server = redis_server(tmp_path / "redis", door=credentials.redis_door(held, tmp_path / "r.sock"))
    server.start()
    yield server
    server.stop()


async def test_redis_asks_for_its_user(held: Path, guarded_redis: RedisServer) -> None:
    chosen = settings(held, "worker", HEADRACE_REDIS_URL=guarded_redis.url)
    store = await Store.open(chosen)
    await store.put_queue(b"q")
    assert await store.read_queue() == b"q"
    assert await store.count("queue") == 1
    for command in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("SET", "other", "x"), ("KEYS", "*"), ("SHUTDOWN",)):
        with pytest.raises(Exception, match=r"(?i)permission"):
            await store._client.execute_command(*command)
    await store.close()
    (held / "wrong").write_text("guess")
    with pytest.raises(BadSetup, match="refuses"):
        await Store.open(replace(chosen, redis_password_file=str(held / "wrong")))
    with pytest.raises(BadSetup, match="refuses"):
        await Store.connect(guarded_redis.url, "local")


async def test_redis_over_tls(held: Path, redis_server: RedisServer) -> None:
    """rediss:// against a server that speaks TLS: here a relay in front of the packaged one, which has none."""
    tls = Tls(held / "member.crt", held / "member.key", held / "ca.crt")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", redis_server.port)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, inner[1]))
            group.create_task(_pump(inner[0], writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=tls.server_context(clients=True))
    url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    chosen = Settings.from_env(credentials.tls_variables(held) | {"HEADRACE_REDIS_URL": url})
    store = await Store.open(chosen)
    await store.put_queue(b"q")
    assert await store.read_queue() == b"q"
    await store.close()
    stranger = await Store.open(replace(chosen, tls_cert="", tls_key="", tls_ca=""))
    with pytest.raises(Unavailable):
        await stranger.read_queue()
    await stranger.close()
    server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


# --- the files ---


def test_private_files_are_private_and_stay(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    credentials.prepare(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    public = {"ca.crt", "member.crt", "client.crt"}
    for path in directory.iterdir():
        assert path.name in public or path.stat().st_mode & 0o077 == 0, path
    kept = {name: (directory / name).read_text() for name in ("nats-worker.creds", "keys.toml", "ca.crt", "ca.key")}
    credentials.prepare(directory)
    assert kept == {name: (directory / name).read_text() for name in kept}


def test_every_subject_has_a_speaker_and_a_listener() -> None:
    """A new subject without a place in the table would be silent under --secure."""
    spoken = {subject for role in permissions.ROLES.values() for subject in role.publish}
    listened = {subject for role in permissions.ROLES.values() for subject in role.subscribe}
    for name in ("EVENTS", "HEARTBEAT", "TELEMETRY", "CONTROL", "STATUS", "SCALE", "CAPS"):
        assert getattr(subjects, name) in spoken & listened, name
    for make in (subjects.work, subjects.peer, subjects.tokens, subjects.gateway, subjects.held):
        assert make("*") in spoken & listened, make
    assert {subjects.REQUESTS, subjects.RESULTS, subjects.LEADER} <= spoken


@pytest.mark.parametrize(("text", "why"), [("one-word", "user:password"), ("", "one line"), ("a:b\nc:d", "one line")])
def test_a_bad_credentials_file_is_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "creds").write_text(text)
    with pytest.raises(BadSetup, match=why) as refused:
        NatsLogin.of(Settings(nats_creds_file=str(tmp_path / "creds")))
    assert "HEADRACE_NATS_CREDS_FILE" in str(refused.value)
    assert socket.gethostname() not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nats://u:p@h:4222,nats://v:q@i:1", "nats://...@h:4222,nats://...@i:1"),
        ("redis://:p@h:1/0", "redis://...@h:1/0"),
        ("unix:///a@b/r.sock", "unix:///a@b/r.sock"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, told: str) -> None:
    assert shown(url) == told
