"""Parts that several requests ask about: how often, how large, and written down and read back."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.workload.arrival import Arrival, Part
from headrace.workload.repeats import Repeats
from headrace.workload.scenario import ScenarioError, parse
from headrace.workload.traces import load
from headrace.workload.traces.headrace import save
from headrace.workload.users import Question
from loadtest.replay import _pictures

N = 20_000


def named(repeats: Repeats, seed: int = 1) -> list[Part]:
    plain = [
        Arrival(float(n), 1, 1, (Part("image", n + 1, 2 * n + 1), Part("audio", duration_s=n + 1.0))) for n in range(N)
    ]
    return [part for arrival in repeats.applied(plain, np.random.default_rng(seed)) for part in arrival.parts]


def test_so_many_are_of_the_pool_by_zipfs_law() -> None:
    parts = named(Repeats(share=0.5, pool=10, zipf=1.0))
    again = Counter(part.content for part in parts if part.content)
    assert sum(again.values()) / len(parts) == pytest.approx(0.5, abs=0.01)
    assert set(again) == {f"{kind} {rank}" for kind in ("image", "audio") for rank in range(10)}
    by_rank = [again[f"image {rank}"] + again[f"audio {rank}"] for rank in range(10)]
    for rank, times in enumerate(by_rank):
        assert times / by_rank[0] == pytest.approx(1 / (rank + 1), rel=0.12), rank


def test_the_same_content_is_the_same_file() -> None:
    sizes: dict[str, set[Part]] = {}
    for part in named(Repeats(share=0.3, pool=50)):
        sizes.setdefault(part.content, set()).add(part)
    assert all(len(sizes[name]) == 1 for name in sizes if name)
    assert len(sizes[""]) > N


def test_a_seed_names_the_same_ones_and_no_share_none() -> None:
    assert named(Repeats(share=0.5)) == named(Repeats(share=0.5))
    assert named(Repeats(share=0.5)) != named(Repeats(share=0.5), seed=2)
    assert not any(part.content for part in named(Repeats()))


def scenario(**workload: Any) -> Any:
    told = {"kind": "generated", "rate_rps": 20, "image_share": 0.5, "profile": "flat", **workload}
    return parse({"about": "x", "duration_s": 60, "workload": told}, Path("s.toml"))


def test_a_scenario_says_so_and_all_else_stays_as_it_was() -> None:
    plain, repeated = (list(scenario(**more).arrivals()) for more in ({}, {"repeats": {"share": 0.5, "pool": 5}}))
    assert [(a.at_s, a.input_tokens, a.output_tokens, len(a.parts)) for a in plain] == [
        (a.at_s, a.input_tokens, a.output_tokens, len(a.parts)) for a in repeated
    ]
    assert {part.content for a in repeated for part in a.parts} == {"", *(f"image {rank}" for rank in range(5))}
    assert not any(part.content for a in plain for part in a.parts)
    with pytest.raises(ScenarioError, match="share"):
        scenario(repeats={"share": 1.5})


def test_a_trace_tells_which_are_the_same(tmp_path: Path) -> None:
    arrivals = list(scenario(repeats={"share": 0.5, "pool": 5}).arrivals())
    save(arrivals, tmp_path / "t.jsonl")
    assert list(load(str(tmp_path / "t.jsonl"), "headrace", {})) == arrivals


def test_a_replay_sends_one_file_for_one_content() -> None:
    names = ["cat", "", "dog", "cat", ""]
    arrivals = [Arrival(0.0, 1, 1, tuple([Part("image", 8, 8, content=name) for name in names]))] * 2
    first, second = ([number for number, *_ in row] for row in _pictures(arrivals))
    assert first[0] == first[3] == second[0] == second[3]
    assert first[2] == second[2]
    own = [first[0], first[1], first[2], first[4], second[1], second[4]]
    assert len(set(own)) == len(own), "all others are files of their own"


def test_users_ask_about_the_same_pictures_again() -> None:
    question = Question(3, ((4, 8, 8), (5, 8, 8), (4, 8, 8)), 9, "", 1)
    names = [part.content for part in question.arrival(0.0).parts]
    assert names[0] == names[2] != names[1]
    assert "" not in names
