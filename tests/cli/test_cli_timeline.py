"""The picture of a request's time: order, labels, bars on one axis."""

from headrace.cli.timeline import lines, rows
from headrace.core.types import StageSpan

SPANS = (
    StageSpan("decode", 100.060, 100.100, "decode-0"),
    StageSpan("gateway", 100.000, 100.002, "gateway-0"),
    StageSpan("prefill", 100.030, 100.050, "prefill-0"),
    StageSpan("encode", 100.010, 100.020, "encoder-0", 0),
    StageSpan("encode", 100.010, 100.025, "encoder-1", 1),
)


def test_in_order_with_the_first_token_where_prefill_ends() -> None:
    found = [(row.label, row.worker, round(row.start_ms), round(row.took_ms)) for row in rows(SPANS)]
    assert found == [
        ("gateway", "gateway-0", 0, 2),
        ("encode 0", "encoder-0", 10, 10),
        ("encode 1", "encoder-1", 10, 15),
        ("prefill", "prefill-0", 30, 20),
        ("first token", "", 50, 0),
        ("decode", "decode-0", 60, 40),
    ]


def test_a_bar_stands_where_its_time_is() -> None:
    bars = {row.label: row.bar for row in rows(SPANS)}
    assert bars["decode"].strip() == "▇" * 13
    assert len(bars["decode"]) == 32
    assert bars["gateway"] == "▇"
    assert len(lines(SPANS)) == 6


def test_nothing_is_nothing() -> None:
    assert lines(()) == []
