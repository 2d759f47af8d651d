"""The pieces of a load test that need no mesh: prompts of a length, pictures of a size, rows into figures."""

import io
import json
import math
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from headrace.client.types import Stage, Usage
from headrace.workload.scenario import ScenarioError, parse
from loadtest.photos import photo
from loadtest.replay_report import remarks
from loadtest.replay_rows import Row, replayed, write
from loadtest.scenario import ask, closed_loop
from loadtest.wording import WORDS, Lexicon, text_of_words

# Tokens of a word, as byte models and large vocabularies have them, and as one that cuts words in two might.
LEXICONS = {
    "bytes": Lexicon(20, {word: len(word) + 1 for word in WORDS}, 1),
    "words": Lexicon(12, dict.fromkeys(WORDS, 1), 1),
    "pieces": Lexicon(9, {word: 2 if len(word) > 4 else 1 for word in WORDS}, 1),
}


@pytest.mark.parametrize("name", LEXICONS)
def test_a_prompt_has_the_tokens_that_were_asked_for(name: str) -> None:
    lexicon = LEXICONS[name]

    def tokens(text: str) -> float:
        words = text.removesuffix(".").split()
        counted = sum(lexicon.word_tokens[word] for word in words[1:])
        return lexicon.template_tokens + counted + lexicon.stop_tokens * text.endswith(".")

    for wanted in (21, 22, 23, 50, 1_000, 8_000):
        assert tokens(lexicon.text(wanted, Random(wanted))) == wanted
    assert lexicon.text(3, Random(0)) == "Read", "the template leaves no room"
    assert lexicon.text(500, Random(1)) != lexicon.text(500, Random(2))
    assert lexicon.text(500, Random(1)) == lexicon.text(500, Random(1))


def test_words() -> None:
    text = text_of_words(7, Random(1))
    assert len(text.split()) == 7
    assert text[0].isupper()
    assert text.endswith(".")


@pytest.mark.parametrize("size", [(16, 16), (500, 333), (1536, 20), (1700, 900)])
def test_photos_have_their_size_and_are_never_the_same_file(size: tuple[int, int]) -> None:
    first, second = photo(1, *size), photo(4, *size)
    assert first != second
    assert first == photo(1, *size)
    image = Image.open(io.BytesIO(second))
    image.load()
    assert image.size == size


def test_locust_asks_what_the_scenario_draws() -> None:
    scenario, users = closed_loop("mixed")
    asked, drawn = ask(scenario.user(3)), scenario.user(3).question()
    assert (asked.max_tokens, asked.slo_class) == (drawn.max_tokens, drawn.slo_class)
    assert len(asked.text.split()) == drawn.prompt_words
    assert [Image.open(io.BytesIO(image)).size for image in asked.images] == [(w, h) for _, w, h in drawn.pictures]
    assert users.users == 8
    with pytest.raises(ScenarioError, match="headrace load replays"):
        closed_loop("laptop")


SCENARIO = parse(
    {
        "about": "x",
        "duration_s": 1,
        "workload": {"kind": "generated"},
        "classes": {"interactive": {"ttft_s": 2.0}, "batch-1": {}},
    },
    Path("rows.toml"),
)


def rows() -> list[Row]:
    """One that keeps its promise, one whose first token is late, one refused, one that is still on its way."""
    kept = Row(0.0, "interactive", 1, 10, sent_s=0.5)
    kept.take(1.0, 1)
    kept.take(1.25, 1)
    kept.take(2.0, 2)
    kept.close(2.0, "length")
    kept.told(Usage(prompt_tokens=17, image_tokens=5), (Stage("encode", 100.6, 100.8, "e"),), 100.0)
    late = Row(1.0, "interactive", 0, 10, sent_s=1.0)
    late.take(4.0, 2)
    late.close(4.0, "stop")
    refused = Row(2.0, "batch-1", 0, 10, sent_s=2.0)
    refused.close(2.5, "error", "overloaded", "the queue is full")
    return [kept, late, refused, Row(3.0, "batch-1", 0, 10, sent_s=3.0)]


def test_rows_become_the_figures_of_a_simulation() -> None:
    done = replayed(SCENARIO, rows(), seed=1, wall_s=10.0, joules=0.0, in_flight_max=2)
    facts = done.summary()
    assert (facts["requests"], facts["finished"], facts["output_tokens"]) == (4, 2, 6)
    assert facts["ttft_p50_s"] == pytest.approx(2.0)
    assert facts["jct_mean_s"] == pytest.approx(2.5)
    assert facts["attainment"] == pytest.approx(0.25)
    assert facts["goodput_rps"] == pytest.approx(0.1)
    assert (facts["late"], facts["late_max_s"]) == (1, 0.5)
    assert facts["failures"] == {"overloaded": 1}
    assert math.isnan(facts["joules"])
    assert int(done.result.tbt.counts.sum()) == 4, "two and two gaps between tokens, those of one message count as none"
    assert facts["tbt_p99_s"] == pytest.approx(0.75, rel=0.02)
    columns = done.requests
    assert (columns.input_tokens[0], columns.media_tokens[0], columns.ready_s[0]) == (12, 5, pytest.approx(0.8))
    assert columns.slo_class.tolist() == [0, 0, 1, 1]
    said = "\n".join(remarks(done))
    assert "1 requests were sent more than 0.1 s late, at most 0.50 s" in said
    assert "1 x overloaded, the first: the queue is full" in said
    assert "1 requests had not ended" in said


def test_rows_as_json_lines(tmp_path: Path) -> None:
    write(rows(), tmp_path / "rows.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["length", "stop", "error", ""]
    assert lines[2]["first_token_s"] is None
    assert lines[0]["output_tokens"] == 4
