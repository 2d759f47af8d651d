"""What a process knows of those it leans on: when certificates end, how full streams are."""

import asyncio
import base64
import time
from pathlib import Path

import pytest

from headrace.mesh import certs
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.expiry import expires_s
from headrace.mesh.health import StreamWatch, common_readings
from headrace.mesh.journal import Journal
from headrace.mesh.metrics import Reading
from headrace.mesh.servers import NatsServer

DAY_S = 86_400.0


@pytest.mark.parametrize(("days", "name"), [(30, "member"), (365, "ca"), (40 * 365, "client")])
def test_when_a_certificate_ends(tmp_path: Path, days: int, name: str) -> None:
    """Forty years from now are written in another form of time (RFC 5280, 4.1.2.5)."""
    certs.make(tmp_path, days=days)
    assert expires_s(tmp_path / f"{name}.crt") == pytest.approx(time.time() + days * DAY_S, abs=60)


def test_the_first_of_several_counts(tmp_path: Path) -> None:
    for days in (30, 10, 20):
        certs.make(tmp_path / str(days), days=days)
    several = tmp_path / "several.crt"
    several.write_bytes(b"".join([(tmp_path / str(days) / "member.crt").read_bytes() for days in (30, 10, 20)]))
    assert expires_s(several) == pytest.approx(time.time() + 10 * DAY_S, abs=60)


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x02\x30\x00", b"\x30\x84\xff\xff\xff\xff", b"not a certificate"])
def test_what_is_no_certificate(tmp_path: Path, der: bytes) -> None:
    path = tmp_path / "broken.crt"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der) + b"\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match="certificate"):
        expires_s(path)


async def test_streams_and_connections_are_told(nats_server: NatsServer, tmp_path: Path) -> None:
    bus = await Bus.connect(nats_server.url, "qm-0")
    settings = Settings(tls_cert=str(tmp_path / "gone.crt"), journal_bytes=1 << 20)
    journal = await Journal.open(bus, settings)
    await journal.append("r1", b"x" * 100)
    watch = StreamWatch(bus, ("REQUESTS", "RESULTS"))
    told = {reading.name: reading for reading in (*watch.readings(), *common_readings(bus, settings))}
    assert _value(told["headrace_stream_messages"]) == {}
    await watch.look()
    assert _value(told["headrace_stream_messages"]) == {("REQUESTS",): 1, ("RESULTS",): 0}
    assert _value(told["headrace_stream_limit_bytes"])[("REQUESTS",)] == 1 << 20
    assert 100 < _value(told["headrace_stream_bytes"])[("REQUESTS",)] < 1000
    caught_up = asyncio.Event()
    follower = journal.follow(lambda _records: None, caught_up.set)
    await caught_up.wait()
    await watch.look()
    assert _value(told["headrace_stream_consumers"])[("REQUESTS",)] == 1
    await follower.stop()
    assert _value(told["headrace_nats_up"]) == {(): 1.0}
    assert _value(told["headrace_certificate_expiry_timestamp_seconds"]) == {}, "what cannot be read is not told"
    await bus.close()
    await watch.look()
    assert _value(told["headrace_nats_up"]) == {(): 0.0}
    assert _value(told["headrace_jetstream_age_seconds"])[()] > 0.0


def _value(reading: Reading) -> dict[tuple[str, ...], float]:
    return dict(reading.read())
