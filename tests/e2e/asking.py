"""A client that checks what it is told: raw gRPC, so that every token's index is seen.

It follows a request through broken connections and dead gateways, as any careful client would: attach again
with the id, or send the same key once more if there is no id yet.
"""

import asyncio
import io
import time
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio
from PIL import Image

from headrace.v1 import gateway_pb2 as pb
from headrace.v1.common_pb2 import End, FinishReason, Sampling
from headrace.v1.gateway_pb2_grpc import GatewayServiceStub

_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


@dataclass(slots=True)
class Answer:
    """What came back, and everything that was wrong about the way it came."""

    request_id: str = ""
    trace_id: str = ""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    end: End | None = None
    faults: list[str] = field(default_factory=list)  # gaps, duplicates, a second end
    breaks: int = 0  # connections that broke under way
    started_s: float = 0.0
    first_token_s: float = 0.0
    heard_s: float = field(default_factory=time.monotonic)
    longest_pause_s: float = 0.0  # between two events, the first one counted from the question

    @property
    def reason(self) -> str:
        return "" if self.end is None else FinishReason.Name(self.end.reason).removeprefix("FINISH_REASON_").lower()

    def take(self, event: pb.GenerateEvent) -> None:
        now_s = time.monotonic()
        self.longest_pause_s, self.heard_s = max(self.longest_pause_s, now_s - self.heard_s), now_s
        if self.end is not None:
            self.faults.append("an event after the end")
        match event.WhichOneof("kind"):
            case "started":
                self.request_id, self.trace_id = event.started.request_id, event.started.trace_id
            case "delta":
                self._delta(event.delta)
            case "end":
                self.end = event.end

    def _delta(self, delta: pb.Delta) -> None:
        if not self.tokens:
            self.first_token_s = time.monotonic()
        if delta.tokens and delta.index != len(self.tokens):
            kind = "a gap" if delta.index > len(self.tokens) else "a duplicate"
            self.faults.append(f"{kind}: index {delta.index} after {len(self.tokens)} tokens")
        self.tokens += delta.tokens
        self.text += delta.text


def picture(seed: int, width: int = 48, height: int = 32) -> bytes:
    """A small PNG, another one for another seed."""
    image = Image.new("RGB", (width, height), ((seed * 37) % 256, (seed * 91) % 256, (seed * 13) % 256))
    image.putpixel((seed % width, seed % height), (255, 255, 255))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def request(
    text: str,
    *,
    max_tokens: int = 16,
    images: Sequence[bytes] = (),
    key: str = "",
    keep: bool = False,
    timeout_s: float = 0,
) -> pb.GenerateRequest:
    parts = [pb.ContentPart(media=pb.MediaInput(modality="image", data=data, mime="image/png")) for data in images]
    return pb.GenerateRequest(
        messages=[pb.Message(role="user", content=[*parts, pb.ContentPart(text=text)])],
        sampling=Sampling(max_tokens=max_tokens, ignore_eos=True),
        idempotency_key=key,
        keep_on_disconnect=keep,
        timeout_s=timeout_s,
    )


def stub(channel: grpc.aio.Channel) -> GatewayServiceStub:
    return GatewayServiceStub(channel)  # type: ignore[no-untyped-call]


async def read(call: AsyncIterable[pb.GenerateEvent], answer: Answer) -> None:
    """To the end of the stream. An end that is no answer (cancelled, deadline, error) is followed by its status.

    Raises:
        grpc.aio.AioRpcError: the stream broke before the end.
    """
    try:
        async for event in call:
            answer.take(event)
    except grpc.aio.AioRpcError:
        if answer.end is None:
            raise


async def ask(address: str, message: pb.GenerateRequest, metadata: Sequence[tuple[str, str]] = ()) -> Answer:
    """One request at one gateway, to its end. Raises grpc.aio.AioRpcError."""
    answer = Answer(started_s=time.monotonic())
    async with grpc.aio.insecure_channel(address) as channel:
        await read(stub(channel).Generate(message, metadata=tuple(metadata)), answer)
    return answer


async def attach(address: str, answer: Answer) -> None:
    """Go on reading where the answer stands. Raises grpc.aio.AioRpcError."""
    async with grpc.aio.insecure_channel(address) as channel:
        wanted = pb.AttachStreamRequest(request_id=answer.request_id, next_index=len(answer.tokens))
        await read(stub(channel).Attach(wanted), answer)


async def follow(
    addresses: Sequence[str], message: pb.GenerateRequest, within_s: float = 60.0, first: int = 0
) -> Answer:
    """Ask, and after every break go on at the next gateway; needs an idempotency key and keep_on_disconnect."""
    assert message.idempotency_key
    assert message.keep_on_disconnect
    answer, at, until = Answer(started_s=time.monotonic()), first, time.monotonic() + within_s
    while answer.end is None and time.monotonic() < until:
        address = addresses[at % len(addresses)]
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + until - time.monotonic()):
                await _read(address, message, answer)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _GONE:
                answer.faults.append(f"{error.code().name}: {error.details()}")
                return answer
            answer.breaks += 1
            at += 1
            await asyncio.sleep(0.1)
        except TimeoutError:
            break
    if answer.end is None:
        answer.faults.append(f"no end within {within_s} s, {len(answer.tokens)} tokens, {answer.breaks} breaks")
    return answer


async def _read(address: str, message: pb.GenerateRequest, answer: Answer) -> None:
    if answer.request_id:
        await attach(address, answer)
        return
    async with grpc.aio.insecure_channel(address) as channel:
        await read(stub(channel).Generate(message), answer)
