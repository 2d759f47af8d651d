"""The gRPC twin of stream_load's closed loop: the same prompt, the same figures, through GatewayService.Generate.

Run as a process of its own: `python -m loadtest.benches.grpc_load HOST:PORT MODEL CONCURRENCY REQUESTS MAX_TOKENS`.
"""

import asyncio
import json
import time

import grpc
import uvloop

from headrace.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc
from loadtest.benches.stream_load import PROMPT, WARM_UP_REQUESTS, Tally, arguments, figures


async def one_request(
    stub: gateway_pb2_grpc.GatewayServiceStub, request: gateway_pb2.GenerateRequest, tally: Tally
) -> None:
    began = time.perf_counter()
    first = 0.0
    tokens = events = 0
    ended = False
    async for event in stub.Generate(request, timeout=60):
        kind = event.WhichOneof("kind")
        if kind == "delta":
            first = first or time.perf_counter()
            tokens += len(event.delta.tokens)
            events += 1
        ended = ended or kind == "end"
    if not ended or not first:
        raise ConnectionError("stream ended without tokens or without an end")
    tally.ttft_s.append(first - began)
    tally.tokens += tokens
    tally.events += events
    tally.requests += 1


async def load(addr: str, model: str, concurrency: int, requests: int, max_tokens: int) -> dict[str, object]:
    request = gateway_pb2.GenerateRequest(
        model=model,
        messages=[gateway_pb2.Message(role="user", content=[gateway_pb2.ContentPart(text=PROMPT)])],
        sampling=common_pb2.Sampling(max_tokens=max_tokens, ignore_eos=True),
    )
    tally = Tally()
    async with grpc.aio.insecure_channel(addr) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(WARM_UP_REQUESTS):
            await one_request(stub, request, Tally())
        left = iter(range(requests))

        async def worker() -> None:
            for _ in left:
                try:
                    await one_request(stub, request, tally)
                except (grpc.aio.AioRpcError, ConnectionError) as error:
                    tally.failures.append(f"{type(error).__name__}: {error}")

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker() for _ in range(concurrency)))
        return figures(tally, concurrency, max_tokens, time.perf_counter() - began, time.process_time() - cpu)


def main() -> None:
    args = arguments(__doc__ or "")
    print(json.dumps(uvloop.run(load(args.addr, args.model, args.concurrency, args.requests, args.max_tokens))))


if __name__ == "__main__":
    main()
