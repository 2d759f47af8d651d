"""Publishers' files are read as they are; what is odd is mended and told, or refused by file, row and column."""

import gzip
import json
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.workload.arrival import Arrival, Part
from headrace.workload.statistics import describe
from headrace.workload.traces import FORMATS, Tally, TraceError, TraceWarning, check_format, load, save
from headrace.workload.traces.base import REORDER_ROWS

DATA = Path(__file__).parents[2].parent / "shared" / "data"
LLM = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
LMM = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def got(tmp_path: Path, text: str, name: str, options: dict[str, Any] | None = None) -> tuple[list[Arrival], Tally]:
    path, tally = tmp_path / "trace.txt", Tally()
    path.write_text(text)
    return list(load(path, name, options, tally)), tally


def short(arrivals: list[Arrival]) -> list[tuple[float, int, int]]:
    return [(round(a.at_s, 6), a.input_tokens, a.output_tokens) for a in arrivals]


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        (("2023-11-16 18:15:46.6805900", "2023-11-16 18:15:50.9951690"), 4.314579),
        (("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:00+00:00"), -0.00993),
        (("2024-05-10T00:00:00Z", "2024-05-11T00:00:01Z"), 86_401.0),
        (("10450312", "10450315.5"), 3.5),
    ],
)
def test_azure_llm_times(tmp_path: Path, stamps: tuple[str, str], seconds: float) -> None:
    """7 digits of a second as in 2023, a zone as in 2024, a row out of order, plain seconds that look like a date."""
    arrivals, _ = got(tmp_path, f"{LLM}{stamps[0]},374,44\n{stamps[1]},396,109\n", "azure-llm")
    wanted = [(0.0, 374, 44), (seconds, 396, 109)] if seconds > 0 else [(0.0, 396, 109), (-seconds, 374, 44)]
    assert short(arrivals) == wanted


def test_gzip_is_told_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(gzip.compress(f"{LLM}1,2,3\n".encode()))
    assert short(list(load(path, "azure-llm"))) == [(0.0, 2, 3)]


def test_azure_lmm_splits_tokens_and_clips_images(tmp_path: Path) -> None:
    rows = LMM + "2024-10-15 12:00:00,0,100,9\n2024-10-15 12:00:01,1,1000,9\n2024-10-15 12:00:02,529,5000,0\n"
    arrivals, tally = got(tmp_path, rows, "azure-lmm", {"image_token_share": 0.75})
    assert short(arrivals) == [(0.0, 100, 9), (1.0, 250, 9), (2.0, 1250, 1)]
    assert [len(a.parts) for a in arrivals] == [0, 1, 16]
    assert [a.parts[0].tokens for a in arrivals[1:]] == [750, 3750 // 16]
    assert all(part.width >= 16 and part.height >= 16 for a in arrivals for part in a.parts)
    assert tally.mended == {"NumImages above 16, clipped": 1, "0 output tokens, taken as 1": 1}


def test_azure_lmm_can_leave_counts_and_tokens_alone(tmp_path: Path) -> None:
    arrivals, tally = got(tmp_path, LMM + "0,529,5000,7\n", "azure-lmm", {"images_max": 0, "count_tokens": False})
    assert [len(a.parts) for a in arrivals] == [529]
    assert {part.tokens for part in arrivals[0].parts} == {0}
    assert not tally.mended


def test_mooncake_keeps_blocks(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]},
        {"timestamp": 3000, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]},
    ]
    arrivals, _ = got(tmp_path, "\n".join(map(json.dumps, lines)), "mooncake")
    assert short(arrivals) == [(0.0, 6758, 500), (3.0, 7322, 490)]
    assert [a.blocks for a in arrivals] == [(0, 1, 2), (0, 14)]
    assert got(tmp_path, json.dumps(lines[1]), "mooncake", {"unit": "s"})[0][0].at_s == 3000


def test_burstgpt_leaves_failures_out_and_tells(tmp_path: Path) -> None:
    rows = BURST + (
        "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,0,0,0,Conversation log\n118,GPT-4,417,0,417,API log\n"
        "185,GPT-4,417,276,693,Conversation log\n"
    )
    arrivals, tally = got(tmp_path, rows, "burstgpt")
    assert short(arrivals) == [(0.0, 472, 18), (180.0, 417, 276)]
    assert [a.model for a in arrivals] == ["ChatGPT", "GPT-4"]
    assert (tally.rows, tally.skipped) == (4, {"failed request: 0 response tokens": 2})
    kept, tally = got(tmp_path, rows, "burstgpt", {"failures": "keep", "skip_bad": True, "from_midnight": True})
    assert short(kept) == [(5.0, 472, 18), (118.0, 417, 1), (185.0, 417, 276)]
    assert tally.skipped == {"Request tokens: must be at least 1": 1}


def test_burstgpt_2_has_sessions(tmp_path: Path) -> None:
    header = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    arrivals, _ = got(tmp_path, header + "5,abc,1.5,ChatGPT,472,18,490,Conversation log\n", "burstgpt")
    assert [(a.tenant, a.model) for a in arrivals] == [("abc", "ChatGPT")]


def client(folder: Path, number: int, windows: str, **fields: str) -> None:
    (folder / f"chunk-{number}-trace.csv").write_text(windows)
    (folder / f"chunk-{number}-dataset.json").write_text(json.dumps({"0": fields, "600": fields}))


def test_servegen_draws_from_its_clients(tmp_path: Path) -> None:
    text = {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{0: 0.25, 7: 0.75}"}
    client(tmp_path, 0, "0,2.0,1.5,Gamma,0.44,1.1\n600,4.0,0.5,Weibull,2.1,0.28\n1200,0,0,,0,0\n", **text)
    media = {"text_tokens": "{50: 1.0}", "image_tokens": "{1225: 1.0}", "image_count": "{2: 1.0}"}
    client(tmp_path, 7, "0,1.0,0.0,Gamma,1,1\n600,0,0,,0,0\n", **media, output_tokens="{9: 1.0}")
    tally = Tally()
    arrivals = list(load(tmp_path, "servegen", {"seed": 3}, tally))
    assert arrivals == list(load(tmp_path, "servegen", {"seed": 3}, Tally()))
    assert arrivals != list(load(tmp_path, "servegen", {"seed": 4}, Tally()))
    assert [a.at_s for a in arrivals] == sorted(a.at_s for a in arrivals)
    late = [a for a in arrivals if a.at_s >= 600]
    assert len(late) == pytest.approx(2400, rel=0.06)
    assert {a.tenant for a in late} == {"client-0"}
    images = [a for a in arrivals if a.parts]
    assert len(images) == pytest.approx(600, rel=0.25)
    assert {a.parts for a in images} == {(Part("image", 980, 980, tokens=1225),) * 2}
    assert tally.mended["cv out of bounds, taken as Poisson"] == 1
    assert tally.mended["0 output tokens, taken as 1"] == sum(a.output_tokens == 1 for a in arrivals)


def test_servegen_takes_a_span_at_a_rate(tmp_path: Path) -> None:
    text = {"input_tokens": "{100: 1.0}", "output_tokens": "{7: 1.0}"}
    client(tmp_path, 0, "0,2.0,1,Gamma,1,1\n600,4.0,1,Gamma,1,1\n1200,4.0,1,Gamma,1,1\n", **text)
    options = {"start_s": 300.0, "duration_s": 600.0, "rate_rps": 30.0}
    arrivals = list(load(tmp_path, "servegen", options, Tally()))
    assert len(arrivals) == pytest.approx(30 * 600, rel=0.05)
    early = sum(a.at_s < 300 for a in arrivals)
    assert early / len(arrivals) == pytest.approx(1 / 3, abs=0.02)
    assert arrivals[0].at_s >= 0
    assert arrivals[-1].at_s < 600


names = st.text(st.characters(codec="utf-8"), max_size=8)
parts = st.builds(
    Part,
    modality=st.sampled_from(["image", "audio", "video"]),
    width=st.integers(0, 4000),
    height=st.integers(0, 4000),
    duration_s=st.floats(0, 1e4),
    tokens=st.integers(0, 10_000),
)


@st.composite
def arrivals_of(draw: st.DrawFn) -> Arrival:
    output = draw(st.integers(1, 1000))
    return Arrival(
        at_s=draw(st.floats(0, 1e6)),
        input_tokens=draw(st.integers(1, 100_000)),
        output_tokens=output,
        parts=tuple(draw(st.lists(parts, max_size=3))),
        max_tokens=draw(st.sampled_from([0, output, output + 10])),
        slo_class=draw(names),
        model=draw(names),
        tenant=draw(names),
        blocks=tuple(draw(st.lists(st.integers(0, 2**40), max_size=4))),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(arrivals_of(), max_size=10))
def test_our_own_format_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[Arrival]
) -> None:
    ordered = sorted(arrivals, key=lambda a: a.at_s)
    path = tmp_path_factory.mktemp("own") / "own.jsonl"
    assert save(ordered, path) == len(ordered)
    assert list(load(path, "headrace")) == ordered


def test_our_own_csv(tmp_path: Path) -> None:
    plain, _ = got(tmp_path, "arrival_s,input_tokens,output_tokens\n1.5,374,44\n", "headrace")
    assert plain == [Arrival(1.5, 374, 44)]
    rows = "model,at_s,input_tokens,output_tokens,max_tokens,slo_class\nm,0.5,3,4,8,batch\n"
    assert got(tmp_path, rows, "headrace")[0] == [Arrival(0.5, 3, 4, max_tokens=8, slo_class="batch", model="m")]


MOON = '{"timestamp": 1, "input_length": 1, "output_length": 1}\n'
BAD: dict[str, tuple[str, str, str]] = {
    "no prompt": ("azure-llm", LLM + "1,5,6\n2,0,6\n", "row 3: column ContextTokens: must be at least 1, is '0'"),
    "missing cell": ("azure-llm", LLM + "1,5\n", "row 2: column GeneratedTokens: is missing"),
    "no number": ("azure-llm", LLM + "1,five,6\n", "row 2: column ContextTokens: must be a number, is 'five'"),
    "half a token": ("azure-llm", LLM + "1,5.5,6\n", "column ContextTokens: must be a whole number"),
    "negative": ("azure-llm", LLM + "1,5,-6\n", "column GeneratedTokens: must be at least 0, is '-6'"),
    "no time": ("azure-llm", LLM + "noon,5,6\n", "column TIMESTAMP: must be a date and time or seconds"),
    "mixed times": ("azure-llm", LLM + "1,5,6\n2024-05-10 00:00:00,5,6\n", "row 3: column TIMESTAMP: is written"),
    "mixed zones": ("azure-llm", LLM + "2024-05-10 00:00:00,5,6\n2024-05-10 00:00:01Z,5,6\n", "row 3: column TIMEST"),
    "negative images": ("azure-lmm", LMM + "1,-1,5,6\n", "column NumImages: must be at least 0"),
    "no JSON": ("mooncake", MOON + "{oops\n", "row 2: column .line.: must be JSON"),
    "no length": ("mooncake", '{"timestamp": 1, "output_length": 1}\n', "row 1: column input_length: is missing"),
    "odd length": ("mooncake", '{"timestamp": 1, "input_length": true, "output_length": 1}\n', "column input_length"),
    "odd blocks": ("mooncake", MOON.replace("}", ', "hash_ids": ["a"]}'), "column hash_ids: must be a list"),
    "no model tokens": ("burstgpt", BURST + "1,GPT-4,0,5,5,API log\n", "row 2: column Request tokens"),
    "misspelt": ("headrace", '{"at_s": 1, "input_tokens": 1, "output_tokens": 1, "modle": "m"}', "column modle: is no"),
    "too few": ("headrace", '{"at_s": 1, "input_tokens": 1, "output_tokens": 9, "max_tokens": 3}', "max_tokens"),
    "misspelt part": (
        "headrace",
        '{"at_s": 1, "input_tokens": 1, "output_tokens": 1, "parts": [{"wdith": 3}]}',
        "column wdith",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_by_place_or_counted(tmp_path: Path, case: str) -> None:
    name, text, message = BAD[case]
    with pytest.raises(TraceError, match=rf"trace\.txt.*{message}"):
        got(tmp_path, text, name)
    left, tally = got(tmp_path, text, name, {"skip_bad": True})
    assert tally.skipped.total() == 1
    assert tally.rows == len(left) + 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("azure-llm", "TIMESTAMP,ContextTokens\n", "no column GeneratedTokens"),
        ("azure-lmm", "", "no column TIMESTAMP"),
        ("burstgpt", LLM, "no column Model"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        got(tmp_path, text, name)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.csv: cannot be read"):
        list(load(tmp_path / "none.csv", "azure-llm"))
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(LLM.encode() + b"1,2,3\n" * 5000)[:60])
    with pytest.raises(TraceError, match=r"torn\.csv\.gz: cannot be read"):
        list(load(torn, "azure-llm"))
    with pytest.raises(TraceError, match=r"must be a folder with chunk-N-trace\.csv"):
        list(load(torn, "servegen"))


@pytest.mark.parametrize(
    ("windows", "fields", "message"),
    [
        ("0,2.0,1.5,Pareto,1,1\n", {}, "column 4 .law.: must be one of Gamma, Weibull"),
        ("0,2.0\n", {}, "column 3 .cv.: is missing"),
        ("0,0,0,,0,0\n", {}, "no client has traffic"),
        ("0,1,1,Gamma,1,1\n", {"output_tokens": "{}"}, r"chunk-0-dataset\.json: must be"),
        ("0,1,1,Gamma,1,1\n", {"output_tokens": "__import__('os')"}, r"chunk-0-dataset\.json: must be"),
    ],
)
def test_servegen_refuses_by_file(tmp_path: Path, windows: str, fields: dict[str, str], message: str) -> None:
    client(tmp_path, 0, windows, **{"input_tokens": "{100: 1.0}", "output_tokens": "{7: 1.0}", **fields})
    with pytest.raises(TraceError, match=message):
        list(load(tmp_path, "servegen"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("azure", {}, "there is no 'azure'; allowed: azure-llm"),
        ("azure-llm", {"skipbad": True}, "did you mean skip_bad"),
        ("azure-lmm", {"image_token_share": 1.5}, "must be at most 1"),
        ("burstgpt", {"failures": "mend"}, "allowed: keep, skip"),
    ],
)
def test_wrong_formats_and_options_are_told_at_once(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        check_format(name, options)
    with pytest.raises(TraceError, match=message):
        load("anywhere", name, options)


def test_mended_rows_are_told_even_where_nobody_counts(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text(LLM + "1,5,0\n2,5,0\n3,5,1\n")
    with pytest.warns(TraceWarning, match=r"odd\.csv: 3 rows, 2 mended \(0 output tokens, taken as 1\)"):
        list(load(path, "azure-llm"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(load(path, "azure-llm", tally=Tally()))


def test_rows_are_sorted_within_a_window_and_refused_beyond(tmp_path: Path) -> None:
    far = [*range(REORDER_ROWS // 2, 0, -1), *range(REORDER_ROWS, 2 * REORDER_ROWS)]
    arrivals, _ = got(tmp_path, LLM + "".join(f"{t},5,6\n" for t in far), "azure-llm")
    assert [a.at_s for a in arrivals] == [float(t - 1) for t in sorted(far)]
    with pytest.raises(TraceError, match="goes back in time by more than"):
        got(tmp_path, LLM + "".join(f"{t},5,6\n" for t in [*range(1, 3 * REORDER_ROWS), 0]), "azure-llm")


def test_reading_streams(tmp_path: Path) -> None:
    """The first request is there long before the file's end, which is torn."""
    path = tmp_path / "long.csv"
    path.write_text(LLM + "".join(f"{t},5,6\n" for t in range(5 * REORDER_ROWS)) + "oops,5,6\n")
    rows: Iterator[Arrival] = load(path, "azure-llm")
    assert next(rows).at_s == 0
    with pytest.raises(TraceError, match="oops"):
        list(rows)


@pytest.mark.parametrize(
    ("file", "name", "requests", "rate_rps", "cv"),
    [
        ("azure2023_conv.csv.gz", "headrace", 10_108, 5.62, 1.07),
        ("azure2023_code.csv.gz", "headrace", 5_740, 3.21, 13.5),
        ("mooncake_synthetic.jsonl.gz", "mooncake", 3_993, 3.91, None),
    ],
)
def test_real_files(file: str, name: str, requests: int, rate_rps: float, cv: float | None) -> None:
    if not (DATA / file).is_file():
        pytest.skip(f"shared/data has no {file}")
    stats = describe(load(DATA / file, name))
    assert stats.requests == requests
    assert stats.traffic["all"].rate_rps == pytest.approx(rate_rps, rel=0.01)
    if cv is None:
        assert 0.1 < stats.reuse.share < 0.9
    else:
        assert stats.traffic["all"].gap_cv == pytest.approx(cv, rel=0.01)


def test_real_servegen_clients(tmp_path: Path) -> None:
    archive = DATA / "servegen_mm-image_raw.tar.gz"
    if not archive.is_file():
        pytest.skip("shared/data has no servegen_mm-image_raw.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    span = {"start_s": 36_000.0, "duration_s": 1800.0, "rate_rps": 5.0}
    stats = describe(load(tmp_path, "servegen", span, Tally()))
    assert stats.traffic["all"].rate_rps == pytest.approx(5.0, rel=0.1)
    assert stats.shares["image"] > 0.9
    assert stats.media_tokens["image"].greatest <= 1280


def test_every_format_is_tested_here() -> None:
    assert set(FORMATS) == {"azure-llm", "azure-lmm", "burstgpt", "headrace", "mooncake", "servegen"}
