"""Scenario files: what is read from good ones, what is said about bad ones, and that a seed draws the same requests."""

import tomllib
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace.core.slo import CLASSES
from headrace.workload import scenario as scenarios
from headrace.workload.fleet import PoolSpec
from headrace.workload.multimodal import IMAGE_SPIKES, Multimodal, TextOnly
from headrace.workload.scenario import Generated, Scenario, ScenarioError, Traced, Users, parse, read

OPEN = """
about = "x"
duration_s = 20
[workload]
kind = "generated"
rate_rps = 10
profile = "flat"
"""
CLOSED = """
about = "x"
duration_s = 20
[workload]
kind = "users"
users = 2
pause_s = [0, 1]
max_tokens = [1, 9]
prompt_words = [2, 5]
images = {0 = 1, 3 = 1}
"""
FLEET = """
[[fleet.pools]]
name = "llm"
stages = ["prefill", "decode"]
gpu = "a100"
tp = 4
count = 2
"""


def of(text: str, folder: Path = Path()) -> Scenario:
    return parse(tomllib.loads(text), folder / "a.toml")


def test_defaults() -> None:
    scenario = of(OPEN)
    assert (scenario.name, scenario.seed, scenario.drain_s) == ("a", 1, 60.0)
    assert scenario.classes == (CLASSES["interactive"],)
    assert scenario.fleet is None
    assert scenario.incidents == ()
    work = scenario.workload
    assert isinstance(work, Generated)
    assert work.source == Multimodal(rate_rps=10.0, profile="flat")


def test_everything_that_is_said_is_there() -> None:
    scenario = of(
        OPEN
        + """
generator = "multimodal"
allowance = 2
output_tokens = "sharegpt-output"
input_tokens = {p = [0, 1], x = [10, 20]}
sizes.median_px = 100
spikes.burst_factor = 8
[[workload.bursts]]
at_s = 5
seconds = 2
rate_rps = 3
[classes.interactive]
share = 3
ttft_s = 5
[classes.gold]
ttft_s = 1
timeout_s = 30
queue_limit = 7
[fleet]
link = "nvlink"
"""
        + FLEET
        + """
[[incidents]]
at_s = 9
kind = "clock"
worker = "llm-1"
seconds = -2
[[incidents]]
at_s = 3
kind = "start"
worker = "llm"
[mesh]
hop_s = 1e-3
"""
    )
    assert scenario.weights == {"interactive": 0.75, "gold": 0.25}
    assert [(slo.ttft_s, slo.timeout_s, slo.queue_limit) for slo in scenario.classes] == [(5, 120, 4096), (1, 30, 7)]
    assert scenario.class_index("gold") == 1
    assert (scenario.fleet is not None) != (scenario.drill is not None), "simulated, or put on a live mesh"
    assert scenario.fleet is not None
    assert scenario.fleet.gpus == 8
    assert scenario.fleet.pool("llm") == PoolSpec("llm", ("prefill", "decode"), gpu="a100", tp=4, count=2)
    assert [incident.kind for incident in scenario.incidents] == ["start", "clock"], "in order of time"
    assert scenario.incidents[1].pool == "llm"
    assert scenario.mesh == {"hop_s": 0.001}
    work = scenario.workload
    assert isinstance(work, Generated)
    assert isinstance(work.source, Multimodal)
    assert work.source.sizes.median_px == 100
    assert work.source.sizes.most_px == 8192, "what a table leaves out is the default's"
    assert work.source.spikes == replace(IMAGE_SPIKES, burst_factor=8.0)
    arrivals = list(scenario.arrivals())
    assert all(10 <= a.input_tokens <= 20 and a.max_tokens == 2 * a.output_tokens for a in arrivals)
    assert {a.slo_class for a in arrivals} == {"interactive", "gold"}


BAD = [
    ("about = 1", "a.toml about: must be a text, is 1"),
    ("durations_s = 5", "did you mean duration_s?"),
    ("duration_s = 0", "a.toml duration_s: must be above 0, is 0"),
    ("duration_s = nan", "must be a number, is nan"),
    ("seed = 1.5", "seed: must be a whole number, is 1.5"),
    ("drain_s = '9'", "drain_s: must be a number, is '9'"),
    ("workload.kind = 'locust'", "[workload] kind: cannot be 'locust'; allowed: generated, trace, streams, users"),
    ("workload.generator = 'audio'", "[workload] generator: cannot be 'audio'; allowed: multimodal, text"),
    ("workload.rate = 3", "no key 'rate' (did you mean rate_rps?)"),
    ("workload.rate_rps = -3", "[workload]: rate_rps: above 0"),
    ("workload.profile = 'month'", "profile: cannot be 'month'; allowed: week, day, flat"),
    ("workload.input_tokens = 'long'", "there are no lengths 'long'; allowed: azure-lmm-text-input"),
    ("workload.allowance = 0.5", "allowance: must be at least 1"),
    ("workload.bursts = [{at_s = 1, seconds = 2}]", "[workload] bursts[0]: rate_rps is missing (a number)"),
    ("workload.bursts = [{at_s = 1, seconds = 2, rate_rps = 1, image_share = 2}]", "must be at most 1, is 2"),
    ("classes.gold.share = 1", "[classes.gold] ttft_s: is missing; a class other than interactive"),
    ("classes.interactive.share = 0", "at least one class needs a share above 0"),
    ("classes.interactive.queue_limit = 0", "[classes.interactive] queue_limit: must be at least 1"),
    ("fleet.link = 'nvlink'", "[fleet] pools: is missing"),
    ("fleet.pools = [{name = 'a', stages = ['prefil'], gpu = 'a100'}]", "[[fleet.pools]] a stages[0]: cannot be"),
    ("fleet.pools = [{name = 'a-b', stages = ['prefill'], gpu = 'a100'}]", "a word without a hyphen"),
    ("fleet.pools = [{name = 'a', stages = ['prefill', 'decode']}]", "gpu: is missing"),
    ("fleet.pools = [{name = 'a', stages = ['prefill'], gpu = 'a100'}]", "no pool has the stage decode"),
    ("incidents = [{at_s = 1, kind = 'fire'}]", "[[incidents]] 0 kind: cannot be 'fire'; allowed: kill, stop"),
    ("incidents = [{at_s = 1, kind = 'kill'}]", "worker: is missing; kill needs"),
    ("incidents = [{at_s = 1, kind = 'kill', worker = 'llm'}]", "pools: none: there is no [fleet]"),
    ("incidents = [{at_s = 1, kind = 'cap', worker = 'llm', prefill = 2}]", "prefill: must be above 0 and at most 1"),
    ("incidents = [{at_s = 1, kind = 'bus_down'}]", "seconds: is missing; bus_down needs it"),
    ("incidents = [{at_s = 1, kind = 'bus_down', seconds = -1}]", "seconds: must be at least 0"),
    ("mesh.hop_s = 'slow'", "mesh.hop_s: must be a number"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[change for change, _ in BAD])
def test_a_mistake_is_told_by_file_table_and_key(change: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(_merged(tomllib.loads(OPEN), tomllib.loads(change)), Path("a.toml"))
    assert str(caught.value).startswith("a.toml")
    assert said in str(caught.value)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(under)
    for key, value in over.items():
        out[key] = _merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


BAD_USERS = [
    ("users = true", "users: must be a whole number, is true"),
    ("users = 0", "users: must be at least 1, is 0"),
    ("pause_s = [1]", "pause_s: must be a list of 2 values, is [1]"),
    ("pause_s = [2, 1]", "pause_s: the first value is the least"),
    ("prompt_tokens = [1, 2]", "either in prompt_words or in prompt_tokens"),
    ("images = {a = 1}", "its keys must be whole numbers, one is 'a'"),
    ("images = {1 = 0}", "a weight above 0"),
    ("image_sizes = []", "image_sizes: needs at least one size"),
    ("grpc_share = 1.5", "grpc_share: must be at most 1, is 1.5"),
]


@pytest.mark.parametrize(("change", "said"), BAD_USERS, ids=[change for change, _ in BAD_USERS])
def test_mistakes_about_users(change: str, said: str) -> None:
    raw = tomllib.loads(CLOSED)
    raw["workload"] |= tomllib.loads(change)
    with pytest.raises(ScenarioError) as caught:
        parse(raw, Path("a.toml"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        ("llm-2", "the workers are llm-0 to llm-1"),
        ("llm-x", "the workers are"),
        ("encode", "'encode' is of no pool; pools: llm"),
    ],
)
def test_incidents_befall_workers_that_are_there(worker: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        of(OPEN + FLEET + f"[[incidents]]\nat_s = 1\nkind = 'kill'\nworker = '{worker}'")


def test_a_worker_that_was_started_is_there() -> None:
    started = "[[incidents]]\nat_s = 1\nkind = 'start'\nworker = 'llm'\n"
    scenario = of(OPEN + FLEET + started + "[[incidents]]\nat_s = 2\nkind = 'kill'\nworker = 'llm-2'")
    assert len(scenario.incidents) == 2


def test_files_by_name_and_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OPEN)
    assert read("mine", tmp_path) == read(tmp_path / "mine.toml")
    with pytest.raises(ScenarioError, match="neither a file nor one of mine"):
        read("yours", tmp_path)
    (tmp_path / "mine.toml").write_text("about = ")
    with pytest.raises(ScenarioError, match=r"mine\.toml: not TOML"):
        read("mine", tmp_path)


def test_a_trace_is_found_beside_its_scenario_and_shaped(tmp_path: Path) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    (tmp_path / "t.csv").write_text(head + "".join(f"{at},{100 + at},{at + 1}\n" for at in range(100)))
    table = 'about = "x"\nmodel = "m"\nduration_s = 20\n[workload]\nkind = "trace"\nformat = "azure-llm"\n'
    scenario = of(table + 'file = "t.csv"\nwindow_s = [10, 90]\ncompress = 2\nclip.input_tokens = 115', tmp_path)
    assert isinstance(scenario.workload, Traced)
    arrivals = list(scenario.arrivals())
    assert len(arrivals) == 40, "twenty seconds at twice the pace"
    assert [a.at_s for a in arrivals[:3]] == [0.0, 0.5, 1.0]
    assert [a.input_tokens for a in arrivals[4:7]] == [114, 115, 115]
    assert {(a.model, a.slo_class) for a in arrivals} == {("m", "interactive")}
    assert len(list(scenario.changed(scale=0.5).arrivals())) < 35
    assert len(list(of(table + 'file = "t.csv"\nlimit = 3', tmp_path).arrivals())) == 3
    with pytest.raises(ScenarioError, match=r"file: there is no 'u\.csv'"):
        of(table + 'file = "u.csv"', tmp_path)
    with pytest.raises(ScenarioError, match="there is no 'csv'; allowed: azure-llm"):
        of(table.replace("azure-llm", "csv") + 'file = "t.csv"', tmp_path)


@pytest.mark.parametrize("name", scenarios.names())
def test_packaged_scenarios(name: str) -> None:
    scenario = read(name)
    assert scenario.about
    if isinstance(scenario.workload, Users):
        asked = [scenario.user(0).question() for _ in range(3)]
        assert asked == [scenario.user(0).question() for _ in range(3)]
        return
    arrivals = list(islice(scenario.arrivals(), 2_000))
    assert len(arrivals) > 100
    assert arrivals == list(islice(scenario.arrivals(), 2_000)), "the same seed draws the same requests"
    assert arrivals != list(islice(scenario.arrivals(scenario.seed + 1), 2_000))
    assert all(a.at_s <= b.at_s for a, b in pairwise(arrivals))
    assert arrivals[-1].at_s < scenario.duration_s
    assert {a.slo_class for a in arrivals} == set(scenario.weights)
    assert scenario.model in {a.model for a in arrivals}
    assert (scenario.fleet is not None) != (scenario.drill is not None), "simulated, or put on a live mesh"


def test_a_burst_comes_on_top_and_leaves_the_others_as_they_were() -> None:
    calm = of(OPEN + "image_share = 0.0")
    burst = of(OPEN + "image_share = 0.0\nbursts = [{at_s = 5, seconds = 10, rate_rps = 20}]")
    added = [a for a in burst.arrivals() if a.parts]
    assert [a.at_s for a in burst.arrivals() if not a.parts] == [a.at_s for a in calm.arrivals()]
    assert 120 < len(added) < 280
    assert 5 <= added[0].at_s < 6
    assert 14 < added[-1].at_s < 15


def test_changed_scales_rates_and_users() -> None:
    some = len(list(of(OPEN).changed(duration_s=200).arrivals()))
    more = len(list(of(OPEN).changed(duration_s=200, scale=3).arrivals()))
    assert 2.5 < more / some < 3.5
    text = of(OPEN.replace("rate_rps = 10", 'generator = "text"').replace('profile = "flat"', "")).changed(scale=2)
    assert isinstance(text.workload, Generated)
    assert isinstance(text.workload.source, TextOnly)
    assert text.workload.source.rate_rps == pytest.approx(2 * 5.53)
    users = of(CLOSED).changed(scale=2.5, seed=9)
    assert isinstance(users.workload, Users)
    assert (users.workload.users, users.seed) == (5, 9)


def test_users_draw_their_own_questions() -> None:
    scenario = of(CLOSED)
    one, other = scenario.user(0), scenario.user(1)
    asked = [one.question() for _ in range(50)]
    assert asked != [other.question() for _ in range(50)]
    assert {len(question.pictures) for question in asked} == {0, 3}
    assert all(2 <= question.prompt_words <= 5 and 1 <= question.max_tokens <= 9 for question in asked)
    assert all(0 <= one.pause_s() <= 1 for _ in range(50))
    assert (one.start_s, other.start_s) == (0.0, 1.0)
    arrival = next(question for question in asked if question.pictures).arrival(7.0)
    assert (arrival.at_s, len(arrival.parts)) == (7.0, 3)
    assert arrival.parts[0].width > 0
