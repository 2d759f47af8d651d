"""What one iteration says: which messages, to whom, in which order; and what a lost bus may lose."""

from dataclasses import replace

from headrace.core.commands import PrefillCommand
from headrace.core.types import Key, Prompt, Sampling
from headrace.engines.families import family
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown
from headrace.v1 import queue_pb2
from headrace.worker.energy import Account
from headrace.worker.holds import Held
from headrace.worker.intake import Intake
from headrace.worker.outbox import ROWS_MAX, Outbox
from headrace.worker.spans import Spans

SPEC = family("profile-tiny").spec
COMMAND = PrefillCommand(Key("a" * 32, 4097), "m", Prompt((5,) * 16), Sampling(16), "gateway-0", "w-0", 0.0)


class Wire(Bus):
    """The end of the bus where messages go out."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.up = True

    def send(self, subject: str, data: bytes, headers: object = None) -> None:
        if not self.up:
            raise BusDown("down")
        self.sent.append((subject, data))

    def batches(self, subject: str) -> list[queue_pb2.TokenBatch]:
        return [queue_pb2.TokenBatch.FromString(data) for name, data in self.sent if name == subject]

    def events(self) -> list[queue_pb2.EventBatch]:
        return [queue_pb2.EventBatch.FromString(data) for name, data in self.sent if name == "hr.v1.events"]


def held(name: str, gateway: str = "gateway-0") -> Held:
    command = replace(COMMAND, key=Key(name * 32, 4097), gateway=gateway)
    return Intake("w-0", SPEC, (), 8).prefill(command, 0.0, traced=False)


def end(outbox: Outbox, one: Held) -> None:
    one.end = Spans("w-0", Account()).end(one, "length", None)
    outbox.end(one)


def test_one_message_per_gateway_in_columns() -> None:
    wire = Wire()
    outbox = Outbox(wire, "w-0", "1", lambda _: False)
    a, b, c = held("a"), held("b", "gateway-1"), held("c")
    for one in (a, b, c):
        outbox.token(one, 0, ord(one.key.request_id[0]))
    outbox.flush()
    assert [subject for subject, _ in wire.sent] == ["hr.v1.tokens.gateway-0", "hr.v1.tokens.gateway-1"]
    (batch,) = wire.batches("hr.v1.tokens.gateway-0")
    assert list(batch.request_id) == ["a" * 32, "c" * 32]
    assert (list(batch.attempt), list(batch.index), list(batch.token)) == ([4097, 4097], [0, 0], [97, 99])
    outbox.flush()
    assert len(wire.sent) == 2, "nothing is said twice"


def test_an_end_goes_to_the_gateway_and_with_all_tokens_to_the_queue_manager() -> None:
    wire = Wire()
    outbox = Outbox(wire, "w-0", "1", lambda _: False)
    one = held("a")
    one.tokens += [7, 8]
    end(outbox, one)
    outbox.flush()
    (batch,), (events,) = wire.batches("hr.v1.tokens.gateway-0"), wire.events()
    assert batch.ends[0].count == 2
    assert list(events.ended[0].tokens) == [7, 8]
    assert events.ended[0].end == batch.ends[0].end
    assert (events.worker, events.incarnation) == ("w-0", "1")


def test_an_end_waits_for_the_token_logs_write_in_flight() -> None:
    """Its log is dropped once the end is stored: a write that came after that would stay behind."""
    wire, writing = Wire(), {"a" * 32}
    outbox = Outbox(wire, "w-0", "1", writing.__contains__)
    a, b = held("a"), held("b")
    end(outbox, a)
    end(outbox, b)
    outbox.flush()
    assert [ended.key.request_id[0] for events in wire.events() for ended in events.ended] == ["b"]
    assert len(wire.batches("hr.v1.tokens.gateway-0")[0].ends) == 2, "the client does not wait for that"
    writing.clear()
    outbox.flush()
    assert [ended.key.request_id[0] for events in wire.events() for ended in events.ended] == ["b", "a"]


def test_a_long_resend_is_cut_into_messages_with_the_end_in_the_last() -> None:
    wire = Wire()
    outbox = Outbox(wire, "w-0", "1", lambda _: False)
    one = held("a")
    one.tokens += [1] * (ROWS_MAX + 5)
    one.end = Spans("w-0", Account()).end(one, "length", None)
    outbox.resend(one, 2)
    outbox.flush()
    first, last = wire.batches("hr.v1.tokens.gateway-0")
    assert (len(first.token), len(last.token)) == (ROWS_MAX, 3)
    assert (len(first.ends), len(last.ends)) == (0, 1)
    assert first.index[0] == 2
    assert max(first.ByteSize(), last.ByteSize()) < 1 << 20


def test_what_cannot_be_sent_is_dropped_not_kept() -> None:
    wire = Wire()
    outbox = Outbox(wire, "w-0", "1", lambda _: False)
    one = held("a")
    outbox.token(one, 0, 7)
    end(outbox, one)
    wire.up = False
    outbox.flush()
    wire.up = True
    outbox.flush()
    assert wire.batches("hr.v1.tokens.gateway-0") == []
    assert len(wire.events()) <= 1, "the end may still be told: it will be repeated anyway"
