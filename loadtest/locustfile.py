"""Locust users that ask a running mesh, over HTTP and over gRPC, with real images.

`headrace load` runs it headless; `locust -f loadtest/locustfile.py --host URL` with the web page. The environment says
where and what: HEADRACE_LOAD_GRPC (host:port), HEADRACE_LOAD_SCENARIO (name or file) and HEADRACE_LOAD_SEED; and how to
get in, as for any client (HEADRACE_API_KEY, HEADRACE_TLS_CA).
"""

import base64
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import gevent.ssl
import grpc.experimental.gevent  # type: ignore[import-not-found]
from locust import User, events, task
from locust.contrib.fasthttp import FastHttpUser
from locust.env import Environment

from headrace.client import Client, Door, HeadraceError, Image, Message
from loadtest.scenario import Asked, ask, closed_loop

grpc.experimental.gevent.init_gevent()

SCENARIO, USERS = closed_loop(os.environ.get("HEADRACE_LOAD_SCENARIO", "mixed"))
GRPC_ADDRESS = os.environ.get("HEADRACE_LOAD_GRPC", "127.0.0.1:50051")
SEED = int(os.environ.get("HEADRACE_LOAD_SEED") or SCENARIO.seed)
DOOR = Door.of_env()  # of a mesh that was started with --secure; open otherwise
NUMBERS = itertools.count()


def report(protocol: str, name: str, began_s: float, length: int, error: Exception | None = None) -> None:
    took_ms = (time.perf_counter() - began_s) * 1e3
    events.request.fire(  # type: ignore[no-untyped-call]
        request_type=protocol, name=name, response_time=took_ms, response_length=length, exception=error, context={}
    )


class Asker(User):
    """Draws its questions and pauses from a generator of its own."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.drawn = SCENARIO.user(next(NUMBERS), SEED)

    def wait_time(self) -> float:
        return self.drawn.pause_s()


class HttpUser(Asker, FastHttpUser):
    """As an OpenAI client does: server-sent events, images as data URIs."""

    weight = max(1, round(100 * (1 - USERS.grpc_share)))
    insecure = not DOOR.ca
    ssl_context_factory = partial(gevent.ssl.create_default_context, cafile=DOOR.ca) if DOOR.ca else None

    @task
    def question(self) -> None:
        asked = ask(self.drawn)
        body = {
            "messages": [{"role": "user", "content": list(_parts(asked))}],
            "max_tokens": asked.max_tokens,
            "slo_class": asked.slo_class,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = dict(DOOR.metadata)
        began_s = time.perf_counter()
        # The gateway answers with its first token, so Locust's own measurement of this call is the time to it.
        name = f"first token {asked.kind}"
        reply = self.client.post("/v1/chat/completions", json=body, stream=True, name=name, headers=headers)
        if reply.status_code == 200:
            problem = _read(_lines(reply.iter_content(decode_content=False)))  # type: ignore[no-untyped-call]
            report("POST", f"ask {asked.kind}", began_s, 0, LoadError(problem) if problem else None)


class LoadError(Exception):
    """An answer that was not whole."""


def _parts(asked: Asked) -> Iterator[dict[str, Any]]:
    for image in asked.images:
        data = base64.b64encode(image).decode()
        yield {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
    yield {"type": "text", "text": asked.text}


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def _read(lines: Iterable[bytes]) -> str:
    """To the end of the stream; says what was wrong with it, or nothing."""
    finished, usage = "", None
    for line in lines:
        text = line.decode().strip()
        if text == "data: [DONE]":
            break
        if not text.startswith("data: "):
            continue
        event = json.loads(text.removeprefix("data: "))
        if "error" in event:
            return f"error in the stream: {event['error']['message']}"
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            finished = choice["finish_reason"] or finished
    return "" if finished and usage else f"the stream ended without {'usage' if finished else 'a finish reason'}"


class GrpcUser(Asker):
    """The Python SDK."""

    weight = max(1, round(100 * USERS.grpc_share))

    def on_start(self) -> None:
        self.sdk = Client(GRPC_ADDRESS, tls=DOOR)

    def on_stop(self) -> None:
        self.sdk.close()

    @task
    def question(self) -> None:
        asked = ask(self.drawn)
        began_s, first, length = time.perf_counter(), True, 0
        content: list[str | Image] = [*map(Image, asked.images), asked.text]
        name = asked.kind
        try:
            stream = self.sdk.generate(
                [Message("user", content)], max_tokens=asked.max_tokens, slo_class=asked.slo_class
            )
            for delta in stream:
                if first:
                    report("gRPC", f"first token {name}", began_s, 0)
                    first = False
                length += len(delta.text)
        except HeadraceError as error:
            report("gRPC", f"ask {name}", began_s, length, error)
        else:
            report("gRPC", f"ask {name}", began_s, length)
