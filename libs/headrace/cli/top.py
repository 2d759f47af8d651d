"""`headrace top`: what the console shows, on a terminal: classes, queues, pools, power; once, or as it changes."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live

from headrace.cli import gateway_http, runstate
from headrace.cli.options import add_data_dir
from headrace.cli.top_picture import picture
from headrace.cli.view import columns
from headrace.client.door import Door

KEY = "HEADRACE_API_KEY"
TIMEOUT_S = 5.0
SILENT_S = 25.0  # two and a half beats of the stream
AGAIN_S = 1.0


class NoAnswer(Exception):
    """What is shown instead."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("--url", default="", help="of a gateway's HTTP; else the first of the mesh of --data-dir")
    parser.add_argument("--key", default="", help=f"an operator's ({KEY})")
    parser.add_argument("--once", action="store_true", help="one look, then the end")
    parser.add_argument("--json", action="store_true", help="the state as one JSON object; implies --once")


def run(args: argparse.Namespace) -> int:
    url = args.url or _url_of(args)
    if not url:
        print(runstate.NO_MESH, file=sys.stderr)
        return 1
    door = Door.of_env()
    if args.key:
        door = replace(door, api_key=args.key)
    console = Console(highlight=False, width=columns())
    with gateway_http.client(url, door, TIMEOUT_S) as client:
        try:
            if args.json or args.once:
                return _once(client, console, as_json=args.json)
            _follow(client, console)
        except NoAnswer as error:
            print(f"headrace top: {error}", file=sys.stderr)
            return 1
    return 0


def _url_of(args: argparse.Namespace) -> str:
    state = runstate.running(args.data_dir)
    if state is None:
        return ""
    runstate.enter(state)
    return next(iter(state.http_urls), "")


def _once(client: httpx.Client, console: Console, *, as_json: bool) -> int:
    state = _state(client)
    if as_json:
        print(json.dumps(state))
    else:
        console.print(picture(state, time.time(), console.width))
    return 0


def _state(client: httpx.Client) -> dict[str, Any]:
    """Raises NoAnswer."""
    try:
        reply = client.get("/console/api/state")
    except httpx.HTTPError as error:
        raise NoAnswer(f"{client.base_url} does not answer: {error}") from error
    if reply.status_code != 200:
        raise NoAnswer(_refusal(reply))
    found: dict[str, Any] = reply.json()
    return found


def _refusal(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.url}: {reply.status_code}"


def _follow(client: httpx.Client, console: Console) -> None:
    """Until somebody interrupts; a gateway that goes away is waited for. Raises NoAnswer: it never answered."""
    state = _state(client)
    with Live(picture(state, time.time(), console.width), console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                for state in _states(client):
                    live.update(picture(state, time.time(), console.width), refresh=True)
            except (httpx.HTTPError, NoAnswer) as error:
                trouble = {**state, "trouble": {"gateway": f"the gateway does not answer: {error}"}}
                live.update(picture(trouble, time.time(), console.width), refresh=True)
            time.sleep(AGAIN_S)


def _states(client: httpx.Client) -> Iterator[dict[str, Any]]:
    """Each state that the stream leads to. Raises httpx.HTTPError, NoAnswer."""
    state: dict[str, Any] = {}
    with client.stream("GET", "/console/api/events", timeout=SILENT_S) as reply:
        if reply.status_code != 200:
            reply.read()
            raise NoAnswer(_refusal(reply))
        for name, value in _events(reply.iter_lines()):
            if name == "snapshot":
                state = value
            elif name == "change":
                state = merged(state, value)
            else:
                continue
            yield state


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


KEYED = {
    "workers": "id",
    "queues": "worker",
    "groups": "id",
    "recent": "id",
    "actions": "key",
}  # as the gateway sends them


def merged(state: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The next state: sections whole, of lists of named things those that changed."""
    found = {**state}
    for section, value in change.items():
        if section in KEYED and isinstance(value, dict):
            key = KEYED[section]
            known = {one[key]: one for one in state[section]} | {one[key]: one for one in value["set"]}
            for name in value.get("gone", ()):
                del known[name]
            found[section] = [known[name] for name in value.get("order", known)]
        else:
            found[section] = value
    return found
