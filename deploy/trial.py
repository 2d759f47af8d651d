"""Tries a mesh that runs in containers, from outside: one question about an image, then streams over a killed worker.

Used by deploy/test-compose.sh; talks to the published HTTP port as any client would.
"""

import argparse
import asyncio
import base64
import json
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

PICTURE = Path(__file__).parents[1] / "libs/headrace/assets/demo/red-circle-top-left.png"
QUESTION, ANSWER = "What color is the shape?", "red"
PROMPTS = (
    "Write three sentences about rivers.",
    "Tell me a short story about a fox.",
    "List the months of the year.",
    "Explain how bread is made.",
    "Describe a quiet morning in a village.",
    "What is a mesh network?",
)
TOKENS_MAX = 96  # seconds of decoding on a small machine: time enough for a kill in between
PIECES_BEFORE_KILL = 3
TIMEOUT_S = 180.0
# Two undisturbed runs may differ where the two best tokens nearly tie, since the batches differ.
NEAR_TIES_MAX = 2


@dataclass(slots=True)
class Stream:
    """One streamed answer and when its pieces came."""

    text: str = ""
    finish: str = ""
    done: bool = False
    pieces_s: list[float] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def longest_pause_s(self) -> float:
        return max((b - a for a, b in zip(self.pieces_s, self.pieces_s[1:], strict=False)), default=0.0)


def picture() -> str:
    """A red circle, one of the demo's pictures, as a data URI."""
    return "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()


async def ask_about_image(http: httpx.AsyncClient, model: str) -> str:
    parts = [{"type": "image_url", "image_url": {"url": picture()}}, {"type": "text", "text": QUESTION}]
    body = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 16, "temperature": 0}
    reply = await http.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    answer: str = reply.json()["choices"][0]["message"]["content"]
    return answer


async def follow(http: httpx.AsyncClient, model: str, prompt: str, stream: Stream) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": TOKENS_MAX,
        "temperature": 0,
        "stream": True,
    }
    async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if line.startswith("data: "):
                _take(stream, line.removeprefix("data: "))


def _take(stream: Stream, data: str) -> None:
    assert not stream.done, "something came after [DONE]"
    if data == "[DONE]":
        stream.done = True
        stream.begun.set()
        return
    event = json.loads(data)
    if "error" in event:
        raise SystemExit(f"a stream ended with an error: {event['error']}")
    for choice in event["choices"]:
        if piece := choice["delta"].get("content"):
            assert not stream.finish, "text came after the end"
            stream.text += piece
            stream.pieces_s.append(time.monotonic())
            if len(stream.pieces_s) == PIECES_BEFORE_KILL:
                stream.begun.set()
        if reason := choice.get("finish_reason"):
            assert not stream.finish, "a stream ended twice"
            stream.finish = reason


async def stream_all(http: httpx.AsyncClient, model: str, kill: str) -> list[Stream]:
    """Every prompt at once; kill is a command that is run when each stream has begun, empty for none."""
    streams = [Stream() for _ in PROMPTS]
    async with asyncio.TaskGroup() as tasks:
        for prompt, stream in zip(PROMPTS, streams, strict=True):
            tasks.create_task(follow(http, model, prompt, stream))
        if kill:
            await asyncio.gather(*(stream.begun.wait() for stream in streams))
            under_way = sum(not stream.done for stream in streams)
            victim = await asyncio.to_thread(
                subprocess.run, kill, shell=True, check=True, capture_output=True, text=True
            )
            print(f"killed {victim.stdout.strip()} while {under_way} streams were under way", flush=True)
            assert under_way, "every stream had ended before the kill"
    return streams


def judge(calm: list[Stream], disturbed: list[Stream]) -> None:
    for stream in (*calm, *disturbed):
        assert stream.done, f"a stream broke off: {stream}"
        assert stream.finish in ("stop", "length"), f"a stream has no proper end: {stream}"
    different = [n for n, (a, b) in enumerate(zip(calm, disturbed, strict=True)) if a.text != b.text]
    pause_s = max(stream.longest_pause_s for stream in disturbed)
    print(f"{len(disturbed)} streams complete, {len(different)} differ, longest pause {pause_s:.1f} s", flush=True)
    for n in different:
        print(f"  undisturbed: {calm[n].text!r}\n  disturbed:   {disturbed[n].text!r}")
    assert len(different) <= NEAR_TIES_MAX, "more streams differ than near-ties explain"


async def refuse_strangers(url: str, trusted: ssl.SSLContext) -> None:
    """Without a key there are no models, and without TLS no answer."""
    async with httpx.AsyncClient(verify=trusted, timeout=TIMEOUT_S) as http:
        assert (await http.get(f"{url}/v1/models")).status_code == httpx.codes.UNAUTHORIZED
        try:
            await http.get(f"{url.replace('https://', 'http://')}/v1/models")
        except httpx.TransportError:
            return
    raise AssertionError("it answers without TLS")


async def main(url: str, kill: str, ca: Path | None, key: str) -> None:
    trusted = ssl.create_default_context(cafile=ca)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if url.startswith("https://"):
        await refuse_strangers(url, trusted)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, verify=trusted, headers=headers) as http:
        model = (await http.get("/v1/models")).raise_for_status().json()["data"][0]["id"]
        answer = await ask_about_image(http, model)
        print(f"{QUESTION} {answer}", flush=True)
        if ANSWER not in answer.lower():
            sys.exit(f"expected {ANSWER!r}")
        calm = await stream_all(http, model, "")
        judge(calm, await stream_all(http, model, kill))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--kill", required=True, help="shell command that kills a worker and prints which")
    parser.add_argument("--ca", type=Path, help="PEM file of the authority, for https")
    parser.add_argument("--key", type=Path, help="file with the API key")
    arguments = parser.parse_args()
    secret = arguments.key.read_text().strip() if arguments.key is not None else ""
    asyncio.run(main(arguments.url, arguments.kill, arguments.ca, secret))
