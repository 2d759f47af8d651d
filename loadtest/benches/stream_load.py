"""A closed-loop streaming client for OpenAI-compatible servers, spare enough not to be the bottleneck.

Run as a process of its own: `python -m loadtest.benches.stream_load HOST:PORT MODEL CONCURRENCY REQUESTS MAX_TOKENS`.
Head and body go out in one write with TCP_NODELAY: a client that writes twice measures 40 ms delayed
acknowledgements, not the server.
"""

import argparse
import asyncio
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import uvloop

from loadtest.benches.report import percentile

PROMPT = "tell me about the sea " * 20  # about 100 tokens, 130 with the chat template
WARM_UP_REQUESTS = 2


@dataclass
class Tally:
    ttft_s: list[float] = field(default_factory=list)
    tokens: int = 0
    events: int = 0
    requests: int = 0
    failures: list[str] = field(default_factory=list)


def request_bytes(addr: str, model: str, max_tokens: int, extra_headers: str = "") -> bytes:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": max_tokens,
            "stream": True,
            "temperature": 0,
            "ignore_eos": True,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{extra_headers}Connection: keep-alive\r\n\r\n"
    )
    return head.encode() + body


async def one_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, payload: bytes, tally: Tally) -> None:
    """Send one request and read its stream to the end. Raises ConnectionError on anything but a whole 200."""
    began = time.perf_counter()
    writer.write(payload)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(head.split(b"\r\n", 1)[0].decode())
    first = 0.0
    tokens = events = 0
    done = False
    while True:
        size = int(await reader.readline(), 16)
        chunk = await reader.readexactly(size + 2)
        if size == 0:
            break
        content = chunk.count(b'"content":')
        if content and not first:
            first = time.perf_counter()
        tokens += content
        events += chunk.count(b"data: ")
        done = done or b"data: [DONE]" in chunk
    if not done or not first:
        raise ConnectionError("stream ended without tokens or without [DONE]")
    tally.ttft_s.append(first - began)
    tally.tokens += tokens
    tally.events += events
    tally.requests += 1


async def worker(addr: str, payload: bytes, todo: Iterator[int], tally: Tally) -> None:
    host, port = addr.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in todo:
        try:
            await asyncio.wait_for(one_request(reader, writer, payload, tally), 60)
        except (ConnectionError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
            tally.failures.append(f"{type(error).__name__}: {error}")
            writer.close()
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    writer.close()


async def load(addr: str, model: str, concurrency: int, requests: int, max_tokens: int) -> dict[str, object]:
    payload = request_bytes(addr, model, max_tokens)
    await worker(addr, payload, iter(range(WARM_UP_REQUESTS)), Tally())
    todo = iter(range(requests))
    tally = Tally()
    began = time.perf_counter()
    cpu = time.process_time()
    await asyncio.gather(*(worker(addr, payload, todo, tally) for _ in range(concurrency)))
    return figures(tally, concurrency, max_tokens, time.perf_counter() - began, time.process_time() - cpu)


def figures(tally: Tally, concurrency: int, max_tokens: int, wall_s: float, cpu_s: float) -> dict[str, object]:
    return {
        "concurrency": concurrency,
        "max_tokens": max_tokens,
        "requests": tally.requests,
        "failures": len(tally.failures),
        "failure_examples": tally.failures[:3],
        "wall_s": wall_s,
        "client_cpu_s": cpu_s,
        "req_s": round(tally.requests / wall_s, 1),
        "tok_s": round(tally.tokens / wall_s),
        "ttft_p50_ms": round(1e3 * percentile(tally.ttft_s, 0.5), 2),
        "ttft_p99_ms": round(1e3 * percentile(tally.ttft_s, 0.99), 2),
        "tokens_per_event": round(tally.tokens / max(1, tally.events - 2 * tally.requests), 2),
    }


def arguments(doc: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("addr")
    parser.add_argument("model")
    parser.add_argument("concurrency", type=int)
    parser.add_argument("requests", type=int)
    parser.add_argument("max_tokens", type=int)
    return parser.parse_args()


def main() -> None:
    args = arguments(__doc__ or "")
    print(json.dumps(uvloop.run(load(args.addr, args.model, args.concurrency, args.requests, args.max_tokens))))


if __name__ == "__main__":
    main()
