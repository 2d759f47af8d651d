"""`headrace trace`: from a slow bucket to a trace, from a trace to its log lines, on a mesh of this machine.

Spans come from the file of HEADRACE_TRACE_FILE; slow requests from the exemplars in the gateways' metrics.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from headrace.cli import gateway_http, runstate
from headrace.cli.options import add_data_dir
from headrace.cli.view import Console
from headrace.client.door import Door
from headrace.core.types import StageSpan
from headrace.mesh import genai, metrics

OPEN_METRICS = f"{metrics.OPEN_METRICS};version=1.0.0"
FAMILIES = {
    "ttft": "headrace_time_to_first_token_seconds",
    "request": "headrace_request_seconds",
    "queue": "vllm:request_queue_time_seconds",
    "prefill": "vllm:request_prefill_time_seconds",
    "decode": "vllm:request_decode_time_seconds",
    "token": "vllm:inter_token_latency_seconds",
}
SCRAPE_WAIT_S = 5.0
SHOWN = 10
Told = dict[str, Any]  # a span or a log line, as it stands in its file


@dataclass(frozen=True, slots=True)
class Slow:
    """The newest traced request of a bucket."""

    over_s: float  # the bucket below's bound
    bound: str
    value_s: float
    at_s: float
    trace_id: str
    request_id: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("id", nargs="?", default="", help="of a trace or of a request; without one: the slowest traced")
    parser.add_argument("--of", choices=FAMILIES, default="ttft", help="what was slow, where no id is given")
    parser.add_argument("--file", type=Path, help="where HEADRACE_TRACE_FILE has put the spans")
    parser.add_argument("--logs", action="store_true", help="its lines in the logs of all services, too")


def run(args: argparse.Namespace) -> int:
    console = Console()
    if not args.id:
        return _show_slow(console, args.data_dir, args.of)
    path = args.file or Path(os.environ.get("HEADRACE_TRACE_FILE") or args.data_dir / "traces.jsonl")
    found = spans_of(path, args.id) if path.exists() else []
    lines = log_lines(args.data_dir, _ids(args.id, found)) if args.logs else []
    if not found:
        console.error(f"no span of {args.id} in {path}: was the mesh started with HEADRACE_TRACE_FILE={path}?")
    else:
        console.title(f"trace {found[0]['trace_id']}")
        console.timeline([interval(span) for span in found])
    for line in lines:
        console.plain(line)
    return 0 if found or lines else 1


def _show_slow(console: Console, data_dir: Path, of: str) -> int:
    state = runstate.running(data_dir)
    if state is None:
        console.error(runstate.NO_MESH)
        return 1
    try:
        found = slowest(state.http_urls, FAMILIES[of], runstate.door(state))
    except (httpx.HTTPError, OSError, ValueError) as error:
        console.error(f"no gateway tells its metrics: {error}")
        return 1
    if not found:
        console.plain("nothing has been traced: HEADRACE_TRACE_SAMPLE, or the header x-headrace-trace: 1")
    else:
        console.title(f"newest traced request of each bucket: {of}")
    for slow in found[:SHOWN]:
        bucket, ago_s = f"{slow.over_s:g} to {slow.bound} s", time.time() - slow.at_s
        console.plain(
            f"{bucket:<16} {slow.value_s:8.3f} s  {ago_s:5.0f} s ago  trace {slow.trace_id}  request {slow.request_id}"
        )
    return 0


# --- exemplars ---


def slowest(urls: Iterable[str], family: str, door: Door) -> list[Slow]:
    """Of all gateways, slowest first. Raises httpx.HTTPError: one does not answer; ValueError: not with OpenMetrics."""
    found = [slow for url in urls for slow in exemplars(_scrape(url, door), family)]
    return sorted(found, key=lambda slow: -slow.value_s)


def _scrape(url: str, door: Door) -> str:
    with gateway_http.client(url, door, SCRAPE_WAIT_S) as client:
        return client.get("/metrics", headers={"accept": OPEN_METRICS}).raise_for_status().text


def exemplars(text: str, family: str) -> Iterator[Slow]:
    """text: of OpenMetrics. Of several models each has its own buckets."""
    for metric in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        if metric.name != family:
            continue
        over_s = 0.0
        for sample in metric.samples:
            if sample.name != f"{family}_bucket":
                continue
            bound = sample.labels["le"]
            if sample.exemplar is not None:
                labels, one = sample.exemplar.labels, sample.exemplar
                at_s = float(one.timestamp or 0.0)
                yield Slow(over_s, bound, one.value, at_s, labels["trace_id"], labels["request_id"])
            over_s = 0.0 if bound == "+Inf" else float(bound)


# --- spans ---


def spans_of(path: Path, name: str) -> list[Told]:
    """name: a trace's id or a request's. A line that was cut off is left out."""
    trace_ids = {span["trace_id"] for span in _lines(path, (name,)) if name in _names(span)}
    return [span for span in _lines(path, trace_ids) if span["trace_id"] in trace_ids]


def _names(span: Told) -> tuple[str, str]:
    return span["trace_id"], span["attributes"].get(genai.REQUEST_ID, "")


def _lines(path: Path, words: Iterable[str]) -> Iterator[Told]:
    """Of a file of JSON lines those with any of the words in them."""
    wanted = [word.encode() for word in words]
    with path.open("rb") as file:
        for line in file:
            if any(word in line for word in wanted):
                try:
                    told = json.loads(line)
                except ValueError:
                    continue
                if isinstance(told, dict):
                    yield told


def interval(span: Told) -> StageSpan:
    """The span of the whole request is the gateway's."""
    attributes = span["attributes"]
    stage = "gateway" if genai.OPERATION_NAME in attributes else span["name"]
    part, cached = int(attributes.get(genai.PART, 0)), bool(attributes.get(genai.CACHED, False))
    return StageSpan(stage, span["start_s"], span["end_s"], span["process"], part=part, cached=cached)


def _ids(name: str, spans: Sequence[Told]) -> set[str]:
    return {name, *(span["trace_id"] for span in spans)}


# --- logs ---


def log_lines(data_dir: Path, ids: set[str]) -> list[str]:
    """Of all services, in order; times from the first."""
    told = [line for log in sorted((data_dir / "logs").glob("*.log")) for line in _lines(log, ids)]
    told = sorted((line for line in told if ids & {line.get("trace_id"), line.get("request_id")}), key=_time_s)
    start_s = _time_s(told[0]) if told else 0.0
    return [_written(line, _time_s(line) - start_s) for line in told]


def _time_s(line: Told) -> float:
    return float(line["time_s"])


def _written(line: Told, at_s: float) -> str:
    own = {key: value for key, value in line.items() if key not in _SAID_APART and value}
    said = " ".join([f"{key}={value}" for key, value in own.items()])
    return f"{at_s * 1e3:9.1f} ms  {line['process']:<11} {line['event']:<8} {said}"


_SAID_APART = frozenset({"event", "level", "time_s", "process", "logger", "trace_id", "request_id"})
