"""`headrace top`: the picture of a state, and the command against a gateway that is one file long."""

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rich.console import Console

from headrace.cli import top
from headrace.cli.top_picture import WIDE, picture, slack

NOW_S = 1_000.0


def group(
    number: int, name: str = "interactive", begin_s: float | None = NOW_S + 2.0, due_s: float = NOW_S + 5.0
) -> Any:
    return {"id": number, "class": name, "waiting": number, "begin_s": begin_s, "due_s": due_s}


def state(**changes: Any) -> dict[str, Any]:
    device = {"power_w": 480.0, "cap_w": 490.0, "temp_c": 61.0, "speed": 0.88, "busy": 1.0}
    worker = {"id": "worker-0", "stages": ["prefill", "decode"], "role": "", "loading": "", "draining": False}
    worker |= {"used": 12, "slots": 16, "blocks": 100, "blocks_used": 40, "silent": False, "weight": 1.0}
    worker |= {"tokens_s": 812.0, "devices": [device]}
    load = {"name": "interactive", "queued": 3, "running": 12, "oldest_s": 1.25, "wait_s": 0.4, "target_s": 20.0}
    load |= {"p50_s": 0.31, "p99_s": 2.5, "kept": 0.97}
    queue = {"worker": "worker-0", "running": 12, "slots": 16, "usable": 16, "groups": [1, 2], "more": 7}
    row = {"row": "north", "power_w": 1_500.0, "limit_w": 1_450.0, "least_w": 406.0, "emergencies": ["ups"]}
    point = {"tokens_s": 812.0, "accepted_s": 3.0, "p50_s": 0.31, "p99_s": 2.5, "power_w": 1_500.0, "limit_w": 1_450.0}
    whole = {"gateway": "gateway-0", "trouble": {}, "classes": [load], "workers": [worker], "queues": [queue]}
    whole |= {"groups": [group(1), group(2, due_s=NOW_S - 1.0)], "rows": [row], "point": point, "mode": "enforce"}
    return whole | changes


def drawn(told: dict[str, Any], columns: int = 140) -> str:
    console = Console(width=columns, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(picture(told, NOW_S, columns))
    return console.export_text()


def test_a_picture_says_what_matters() -> None:
    text = drawn(state())
    for words in (
        "812 tokens/s",
        "12 running, 3 waiting",
        "1500 of 1450 W",
        "97%",
        "12/16",
        "490 W",
        "61 C",
        "1 +3.0 s",
        "2 -3.0 s",
        "and 7 more",
        "ups",
    ):
        assert words in text, words


@pytest.mark.parametrize("columns", [80, WIDE, 200])
def test_it_fits_its_terminal(columns: int) -> None:
    assert max(map(len, drawn(state(), columns).splitlines())) <= columns


def test_what_is_not_there_is_no_trouble() -> None:
    bare = state(queues=[], groups=[], rows=[], workers=[], point=None, trouble={"queue": "it cannot be reached"})
    text = drawn(bare)
    assert "it cannot be reached" in text
    many = state(workers=[{**state()["workers"][0], "id": f"worker-{at}"} for at in range(64)])
    assert "and 40 more" in drawn(many)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (group(1, begin_s=None), "?"),
        (group(1, begin_s=0.0), "+5.0 s"),  # at any moment
        (group(1, begin_s=NOW_S - 9.0, due_s=NOW_S + 4.0), "+4.0 s"),  # should have begun: it is not early by that
        (group(1, begin_s=NOW_S + 700.0), "-11.6 min"),
    ],
)
def test_slack(one: Any, said: str) -> None:
    assert slack(one, NOW_S) == said


class Gateway(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers.get("authorization") == "Bearer op"
        body = state() if known else {"error": {"message": "a key of the tenant 'operator' is needed"}}
        data = json.dumps(body).encode()
        self.send_response(200 if known else 403)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        return


@contextmanager
def gateway() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    top.add_arguments(parser)
    return top.run(parser.parse_args(words))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with gateway() as url:
        assert run("--url", url, "--key", "op", "--json") == 0
        assert json.loads(capsys.readouterr().out) == state()
        assert run("--url", url, "--key", "op", "--once") == 0
        assert "worker-0" in capsys.readouterr().out
        assert run("--url", url, "--key", "wrong", "--once") == 1
        assert "tenant 'operator'" in capsys.readouterr().err
    assert run("--url", url, "--once") == 1
    assert "does not answer" in capsys.readouterr().err


def test_merging_goes_on_from_what_is_there() -> None:
    before = state()
    change = {"groups": {"set": [group(3)], "gone": [1]}, "mode": "observe"}
    after = top.merged(before, change)
    assert [one["id"] for one in after["groups"]] == [2, 3]
    assert (after["mode"], before["mode"]) == ("observe", "enforce")
