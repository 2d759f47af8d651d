"""Transcripts of the queue manager: one line per event, and under it `->` lines with the effects it must have.

Requests are r1, r2 ...; r1#2 is the second attempt that this leadership gives r1, r1#1.2 the second of epoch 1.
"""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.commands import Hold
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.queue.config import ATTEMPTS_PER_EPOCH
from headrace.core.types import End, Failure, Key, TensorHandle
from tests.core.queue_world import make_request

START_S = 1000.0
STAGES = ("encode", "prefill", "decode")
QUIET = ("Traced",)  # effects that other tests look at


@dataclass(frozen=True, slots=True)
class Step:
    line: int
    words: tuple[str, ...]
    expected: tuple[str, ...]


def read(path: Path) -> list[Step]:
    steps: list[Step] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.partition("  //")[0].strip()
        if text.startswith("->"):
            last = steps[-1]
            steps[-1] = replace(last, expected=(*last.expected, text[2:].strip()))
        elif text and not text.startswith("//"):
            steps.append(Step(number, tuple(shlex.split(text)), ()))
    return steps


class Stage:
    """Acts a transcript out."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.core = QueueCore(QueueConfig(epoch=1))
        self.beats: dict[str, ev.Heartbeat] = {}
        self.seq = 0

    def act(self, step: Step) -> list[str]:
        verb, *words = step.words
        options = dict(word.split("=", 1) for word in words if "=" in word and "#" not in word)
        plain = [word for word in words if not ("=" in word and "#" not in word)]
        done = list(getattr(self, f"do_{verb}")(*plain, **options))
        self.core.check()
        return [told for effect in done if type(effect).__name__ not in QUIET for told in [self.tell(effect)]]

    def handle(self, event: ev.Event) -> list[fx.Effect]:
        return self.core.handle(event, self.now_s)

    # --- events ---

    def do_epoch(self, number: str) -> list[fx.Effect]:
        self.core = QueueCore(QueueConfig(epoch=int(number)))
        return []

    def do_caught_up(self) -> list[fx.Effect]:
        return self.handle(ev.CaughtUp())

    def do_accept(self, name: str, **about: str) -> list[fx.Effect]:
        self.seq += 1
        changes: dict[str, Any] = {"id": self.id(name), "slo_class": about.get("slo", "interactive")}
        if "deadline" in about:
            changes["deadline_s"] = self.now_s + float(about["deadline"])
        request = make_request(
            0, self.now_s, max_tokens=int(about.get("max", 4)), images=int(about.get("images", 0)), **changes
        )
        return self.handle(ev.RequestAccepted(request, int(about.get("seq", self.seq))))

    def do_results(self, asked: str, *names: str) -> list[fx.Effect]:
        return self.handle(ev.ResultsFound(int(asked), tuple(map(self.id, names))))

    def do_beat(self, worker: str, *holds: str, **about: str) -> list[fx.Effect]:
        """Stages, slots and blocks are those of the beat before unless given."""
        last = self.beats.get(worker) or ev.Heartbeat(worker, f"{worker}-1", STAGES, "m", slots=4, blocks=64)
        self.beats[worker] = beat = replace(
            last,
            incarnation=about.get("life", last.incarnation),
            stages=tuple(about["stages"].split(",")) if "stages" in about else last.stages,
            slots=int(about.get("slots", last.slots)),
            blocks=int(about.get("blocks", last.blocks)),
            block_tokens=16,
            draining=about.get("draining", "no") == "yes",
            leaving=about.get("leaving", "no") == "yes",
            holds=tuple(map(self.hold, holds)),
            sent_s=self.now_s,
            modalities=("image",),
            overlaps=about.get("overlaps", "yes" if last.overlaps else "no") == "yes",
        )
        return self.handle(beat)

    def do_encoded(self, worker: str, key: str, part: str) -> list[fx.Effect]:
        return self.handle(ev.PartEncoded(worker, self.key(key), int(part), self.tensor(worker, key)))

    def do_prefilled(self, worker: str, key: str) -> list[fx.Effect]:
        return self.handle(ev.Prefilled(worker, self.key(key), 1, self.tensor(worker, key)))

    def do_joined(self, worker: str, key: str) -> list[fx.Effect]:
        return self.handle(ev.Joined(worker, self.key(key)))

    def do_ended(self, worker: str, key: str, reason: str, count: str) -> list[fx.Effect]:
        return self.handle(ev.Ended(worker, self.key(key), End(reason), tuple(range(int(count)))))  # type: ignore[arg-type]

    def do_failed(self, worker: str, key: str, how: str) -> list[fx.Effect]:
        failure = Failure("stage_error", "broken")
        return self.handle(ev.StageFailed(worker, self.key(key), failure, how == "retryable"))

    def do_stored(self, name: str) -> list[fx.Effect]:
        return self.handle(ev.ResultStored(self.id(name)))

    def do_recovered(self, key: str, count: str = "0", end: str = "") -> list[fx.Effect]:
        recovered = ev.Recovered(self.key(key), tuple(range(int(count))), End(end) if end else None)  # type: ignore[arg-type]
        return self.handle(ev.TokensRecovered((recovered,)))

    def do_cancel(self, name: str, gateway: str = "") -> list[fx.Effect]:
        return self.handle(ev.Cancel(self.id(name), gateway))

    def do_attach(self, name: str, gateway: str, index: str) -> list[fx.Effect]:
        return self.handle(ev.Attach(self.id(name), gateway, int(index)))

    def do_stalled(self, name: str, gateway: str, index: str) -> list[fx.Effect]:
        return self.handle(ev.Stalled(self.id(name), gateway, 0, int(index)))

    def do_bus(self, state: str) -> list[fx.Effect]:
        return self.handle(ev.BusUp() if state == "up" else ev.BusDown())

    def do_wait(self, seconds: str, *beating: str) -> Iterator[fx.Effect]:
        """Ticks of 0.1 s; the workers named repeat their last heartbeat every half second."""
        for tick in range(1, round(float(seconds) * 10) + 1):
            self.now_s = round(self.now_s + 0.1, 6)
            yield from self.handle(ev.Tick())
            if tick % 5 == 0:
                for worker in beating:
                    self.beats[worker] = beat = replace(self.beats[worker], sent_s=self.now_s)
                    yield from self.handle(beat)

    def do_sleep(self, seconds: str) -> list[fx.Effect]:
        """We are stopped, and go on."""
        self.handle(ev.Tick())
        self.now_s += float(seconds)
        return self.handle(ev.Tick())

    def do_books(self, worker: str) -> list[str]:
        for view in self.core.view(self.now_s).workers:
            if view.worker == worker:
                used = f"{view.slots_used} slots {view.blocks_used} blocks {view.pending_media_tokens} media"
                return [f"{worker} {used}"]
        return [f"{worker} is gone"]

    def do_explain(self, name: str) -> list[str]:
        told = self.core.explain(self.id(name), self.now_s)
        return [f"{told.state} {told.why}"]

    # --- words ---

    def id(self, name: str) -> str:
        return f"{int(name[1:]):032x}"

    def key(self, text: str) -> Key:
        name, _, attempt = text.partition("#")
        epoch, _, number = attempt.rpartition(".")
        at = int(epoch) if epoch else self.core.view(0.0).epoch
        return Key(self.id(name), at * ATTEMPTS_PER_EPOCH + int(number))

    def hold(self, text: str) -> Hold:
        """r1#1=decode@3, r1#1=prefill>d, r1#1=prefill>d-2 (lacks two parts), r1#1=handover>d, r1#1=encoded/0"""
        key, _, rest = text.partition("=")
        rest, _, lacks = rest.partition("-")
        rest, _, index = rest.partition("@")
        rest, _, decode = rest.partition(">")
        state, _, part = rest.partition("/")
        made = self.tensor("", key) if state in ("encoded", "handover") else None
        return Hold(self.key(key), state, int(index or 0), int(part or 0), made, decode, int(lacks or 0))  # type: ignore[arg-type]

    def tensor(self, owner: str, key: str) -> TensorHandle:
        return TensorHandle(f"x.{key}", owner, "", "", "h", "", "f4", (1,), "", 4, 0, 1)

    def show(self, key: Key) -> str:
        epoch, number = divmod(key.attempt, ATTEMPTS_PER_EPOCH)
        own = epoch == self.core.view(0.0).epoch
        return f"r{int(key.request_id, 16)}#{number if own else f'{epoch}.{number}'}"

    def tell(self, effect: fx.Effect | str) -> str:
        return effect if isinstance(effect, str) else _TELL[type(effect)](self, effect)


def _recover(stage: Stage, effect: fx.RecoverTokens) -> str:
    return "recover " + " ".join(f"{stage.show(orphan.key)} at {orphan.gateway}" for orphan in effect.orphans)


def _prefill(stage: Stage, effect: fx.SendPrefill) -> str:
    command = effect.command
    emitted = f" after {len(command.emitted)} tokens" if command.emitted else ""
    images = f" with {len(command.embeddings)} images" if command.embeddings else ""
    return f"prefill {effect.worker} {stage.show(command.key)} then {command.decode_worker}{images}{emitted}"


def _parts(stage: Stage, effect: fx.SendParts) -> str:
    command = effect.command
    last = command.first + len(command.embeddings) - 1
    return f"parts {effect.worker} {stage.show(command.key)} {command.first}" + (
        f"-{last}" if last > command.first else ""
    )


def _resend(stage: Stage, effect: fx.SendResend) -> str:
    command = effect.command
    return f"resend {effect.worker} {stage.show(command.key)} from {command.from_index} to {command.gateway}"


def _name(request_id: str) -> str:
    return f"r{int(request_id, 16)}"


def _end(end: End) -> str:
    return f"{end.reason} {end.failure.code}" if end.failure is not None else end.reason


_TELL: dict[type, Callable[[Stage, Any], str]] = {
    fx.SendPrefill: _prefill,
    fx.SendParts: _parts,
    fx.RecoverTokens: _recover,
    fx.SendEncode: lambda s, e: f"encode {e.worker} {s.show(e.command.key)} part {e.command.part}",
    fx.SendDismiss: lambda s, e: f"dismiss {e.worker}",
    fx.SendCancel: lambda s, e: f"cancel {e.worker} {s.show(e.key)}",
    fx.SendRelease: lambda s, e: f"release {e.worker} {s.show(e.key)}",
    fx.SendResend: _resend,
    fx.FindResults: lambda s, e: "find " + " ".join(map(_name, e.request_ids)),
    fx.StoreResult: lambda s, e: f"store {_name(e.request.id)} {_end(e.end)} {len(e.tokens)} tokens",
    fx.DeleteRecord: lambda s, e: f"delete {_name(e.request_id)} seq {e.seq}",
    fx.DropState: lambda s, e: f"drop {_name(e.request_id)}" + (" and blobs" if e.has_media else ""),
    fx.GatewayEnded: lambda s, e: f"tell {e.gateway} {s.show(e.key)} {_end(e.end)}",
    fx.LookInResults: lambda s, e: f"look {e.gateway} {_name(e.request_id)}",
    fx.Moved: lambda s, e: f"moved {e.gateway} {_name(e.request_id)}",
}
