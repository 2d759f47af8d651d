"""Streams: several sources at once, each for a model, a class and targets of its own."""

import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace.workload.scenario import Scenario, ScenarioError, Streams, parse

TWO = """
about = "x"
model = "m"
duration_s = 100
[workload]
kind = "streams"
[[workload.streams]]
name = "chat"
kind = "generated"
generator = "text"
rate_rps = 5
[[workload.streams]]
name = "jobs"
kind = "generated"
generator = "text"
like = "sharegpt"
rate_rps = 2
model = "other"
slo_class = "batch-1"
ttft_s = 7.5
tbt_s = 0.2
priority = -2
tenant = "t"
flow = "f"
[classes.interactive]
[classes.batch-1]
share = 0
"""


def of(text: str, folder: Path = Path(), **changes: Any) -> Scenario:
    raw = tomllib.loads(text)
    raw["workload"]["streams"][1] |= changes
    return parse(raw, folder / "a.toml")


def test_each_stream_says_what_its_requests_are() -> None:
    arrivals = list(of(TWO).arrivals())
    assert all(a.at_s <= b.at_s for a, b in pairwise(arrivals))
    jobs = [a for a in arrivals if a.model == "other"]
    assert 130 < len(jobs) < 270
    said = {(a.slo_class, a.ttft_s, a.tbt_s, a.priority, a.tenant, a.flow) for a in jobs}
    assert said == {("batch-1", 7.5, 0.2, -2, "t", "f")}
    chat = [a for a in arrivals if a.model == "m"]
    assert len(chat) == len(arrivals) - len(jobs)
    assert {(a.slo_class, a.ttft_s, a.priority, a.tenant) for a in chat} == {("interactive", 0.0, 0, "")}


def test_one_stream_leaves_the_others_as_they_were() -> None:
    slow, fast = ([a for a in of(TWO, rate_rps=rate).arrivals() if a.model == "m"] for rate in (1, 4))
    assert slow == fast


def test_all_streams_are_scaled() -> None:
    once, twice = (len(list(of(TWO).changed(scale=scale).arrivals())) for scale in (1.0, 2.0))
    assert 1.7 < twice / once < 2.3


def test_a_stream_may_be_a_trace_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,5\n1,10,5\n")
    raw = tomllib.loads(TWO)
    trace = {"name": "old", "kind": "trace", "file": "t.csv", "format": "azure-llm", "slo_class": "batch-1"}
    raw["workload"]["streams"][1] = trace
    scenario = parse(raw, tmp_path / "a.toml")
    assert isinstance(scenario.workload, Streams)
    assert [(a.at_s, a.model) for a in scenario.arrivals() if a.slo_class == "batch-1"] == [(0.0, "m"), (1.0, "m")]
    trace["file"] = "u.csv"
    with pytest.raises(ScenarioError, match=r"of old: there is no 'u\.csv'"):
        parse(raw, tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slo_class": "gold"}, "streams jobs slo_class: there is no class 'gold'; there are interactive, batch-1"),
        ({"priority": 4}, "streams jobs priority: must be at most 3"),
        ({"ttft_s": -1.0}, "streams jobs ttft_s: must be at least 0"),
        ({"kind": "users"}, "streams jobs kind: cannot be 'users'; allowed: generated, trace"),
        ({"rate": 2}, "streams jobs: there is no key 'rate'"),
        ({"name": "chat"}, "each needs a name of its own"),
    ],
)
def test_mistakes_name_the_stream_and_the_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        of(TWO, **changes)
    assert said in str(caught.value)


@pytest.mark.parametrize("streams", [[], "chat", None])
def test_streams_without_a_stream(streams: Any) -> None:
    raw = tomllib.loads(TWO)
    raw["workload"]["streams"] = streams
    with pytest.raises(ScenarioError, match=r"write one \[\[workload.streams\]\]"):
        parse(raw, Path("a.toml"))


def test_classes_have_their_further_limits() -> None:
    raw = tomllib.loads(TWO)
    raw["classes"]["batch-1"] |= {"tbt_s": 0.5, "ttl_s": 0}
    raw["classes"]["gold"] = {"ttft_s": 1, "timeout_s": 9, "queue_limit": 5, "ttl_s": 3}
    classes = {slo.name: slo for slo in parse(raw, Path("a.toml")).classes}
    assert (classes["batch-1"].tbt_s, classes["batch-1"].ttl_s) == (0.5, 0.0)
    assert (classes["gold"].tbt_s, classes["gold"].ttl_s) == (0.0, 3.0)


def test_workers_of_an_encoder_pool_load_nothing() -> None:
    raw = tomllib.loads(TWO)
    pool = {"name": "all", "stages": ["encode", "prefill", "decode"], "gpu": "a100", "models": ["m", "n"]}
    raw["fleet"] = {"pools": [pool]}
    with pytest.raises(ScenarioError, match="all: models: an encoder serves one model for ever"):
        parse(raw, Path("a.toml"))
