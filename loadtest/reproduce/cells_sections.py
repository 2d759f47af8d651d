"""The sections of the report on cells: what the cut costs, who spreads, what is lost with a cell."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from headrace.characterize import drawing
from headrace.characterize.document import Figure, Section, Table, number, percent
from headrace.report.chart import Mark
from headrace.report.compare import Estimate, estimate
from headrace.sim.cells import CONNECT_S, STATUS_S, Layout
from loadtest.benches.queue_runs import PLANNING

Row = Mapping[str, Any]
Found = Mapping[Layout, Mapping[int, Row]]  # by layout and seed
FIGURES = (
    "attainment",
    "goodput_rps",
    "ttft_p50_s",
    "ttft_p99_s",
    "ttft_p999_s",
    "event_us",
    "event_p99_us",
    "requests",
)
CUT = ("by-room", "least-load")  # of a cut that ran under both the first is told
CORE = 1.0  # what the queue manager's process can have


def all_of(found: Found, first: Any) -> tuple[Section, ...]:
    """first: a trial, for what all have in common; None: nothing has run."""
    whole = [layout for layout in found if layout.lost_cell < 0 and layout.spread in CUT]
    whole.sort(key=lambda layout: (layout.cells, CUT.index(layout.spread)))
    cut = [layout for at, layout in enumerate(whole) if not at or whole[at - 1].cells != layout.cells]
    main = max((layout.cells for layout in found if layout.spread == "random"), default=0)
    spreads = [layout for layout in found if layout.lost_cell < 0 and layout.cells == main]
    lost = sorted((layout for layout in found if layout.lost_cell >= 0), key=lambda layout: layout.cells)
    sections = [_cut(found, cut)] if cut else []
    sections += [_spread(found, spreads, main)] if len(spreads) > 1 else []
    sections += [_lost(found, lost)] if lost else []
    return (*sections, _rests(found, first))


def data_of(found: Found) -> dict[str, Any]:
    return {
        "layouts": [
            {
                "cells": layout.cells,
                "spread": layout.spread,
                "lost_at_s": layout.lost_at_s if layout.lost_cell >= 0 else None,
                "seeds": len(rows),
                "manager_share": busiest(rows).mean,
                **{name: figure(rows, name).mean for name in (*FIGURES, "lost", "lost_begun")},
            }
            for layout, rows in found.items()
        ],
        "simulated_requests": sum(row["requests"] for rows in found.values() for row in rows.values()),
    }


def figure(rows: Mapping[int, Row], name: str) -> Estimate:
    return estimate([float(row[name]) for row in rows.values()])


def busiest(rows: Mapping[int, Row]) -> Estimate:
    """Share of a core that the busiest cell's queue manager needs."""
    return estimate([max(map(float, row["manager_share"])) for row in rows.values()])


def _cut(found: Found, layouts: Sequence[Layout]) -> Section:
    rows = []
    for layout in layouts:
        of = found[layout]
        counts = [sorted(row["by_cell"]) for row in of.values()]
        uneven = max(each[-1] / each[0] for each in counts)
        rows.append(
            (
                f"{layout.cells}, {layout.spread}" if layout.cells > 1 else "1",
                percent(figure(of, "attainment").mean, 2),
                number(figure(of, "goodput_rps").mean, 4),
                *(number(figure(of, name).mean) for name in ("ttft_p50_s", "ttft_p99_s", "ttft_p999_s")),
                number(figure(of, "event_us").mean),
                number(figure(of, "event_p99_us").mean, 4),
                number(busiest(of).mean),
                f"{uneven:.2f}",
            )
        )
    columns: tuple[str, ...] = ("cells", "promises kept", "goodput, 1/s", "TTFT p50, s", "p99, s", "p99.9, s")
    columns += ("an event, µs", "p99, µs", "cores of a queue manager", "fullest over emptiest")
    return Section(
        "cut",
        "How many cells",
        "simulated",
        findings=tuple(_says(found, layouts)),
        notes=(
            "An event is what the queue manager's core takes for one message (processor time, one of sixteen is timed);"
            " cores: all of them in a second while requests come, of the busiest cell. The process around it (bus,"
            " journal, Redis) needs more. One core is all that a queue manager can use.",
        ),
        tables=(Table("The same fleet and requests, cut", columns, tuple(rows)),),
        figures=(_cores(found, layouts),) if len(layouts) > 1 else (),
    )


def _says(found: Found, layouts: Sequence[Layout]) -> list[str]:
    told = []
    over = [layout.cells for layout in layouts if busiest(found[layout]).mean > CORE]
    if over:
        told.append(
            f"In {_list(over)} {'cell' if over == [1] else 'cells'} a queue manager's decisions alone take more than"
            " one core of this machine: that fleet needs more cells, whatever the simulator says of its latencies."
        )
    whole, most = found[layouts[0]], found[layouts[-1]]
    told.append(
        f"From {layouts[0].cells} to {layouts[-1].cells} cells the 99th percentile of the time to a first token goes"
        f" from {number(figure(whole, 'ttft_p99_s').mean)} to {number(figure(most, 'ttft_p99_s').mean)} s,"
        " kept promises from"
        f" {percent(figure(whole, 'attainment').mean, 2)} to {percent(figure(most, 'attainment').mean, 2)}."
    )
    return told


def _cores(found: Found, layouts: Sequence[Layout]) -> Figure:
    points = [(1_000 / layout.cells, busiest(found[layout]).mean) for layout in reversed(layouts)]
    return drawing.lines(
        "What a queue manager decides needs, by the size of its cell",
        {"decisions of the core": points, "one core": [(points[0][0], CORE), (points[-1][0], CORE)]},
        drawing.logarithmic("GPUs of a cell"),
        drawing.logarithmic("cores"),
    )


def _spread(found: Found, layouts: Sequence[Layout], cells: int) -> Section:
    rows = tuple(
        (
            layout.spread,
            percent(figure(found[layout], "attainment").mean, 2),
            *(number(figure(found[layout], name).mean) for name in ("ttft_p50_s", "ttft_p99_s", "ttft_p999_s")),
            f"{max(max(row['by_cell']) / min(row['by_cell']) for row in found[layout].values()):.2f}",
        )
        for layout in layouts
    )
    columns = ("spread", "promises kept", "TTFT p50, s", "p99, s", "p99.9, s", "fullest over emptiest")
    return Section(
        "spread",
        "Who spreads the requests",
        "simulated",
        notes=(
            "by-room: at random in proportion to free slots (the default). least-load: fewest requests for each slot,"
            " those sent since the status among them."
            " two-choices: the less loaded of two at random. least-wait: the least expected wait of the last status and"
            " nothing else: for a quarter of a second all go to one cell. round-robin and random look at nothing.",
        ),
        tables=(Table(f"{cells} cells, four doors", columns, rows),),
    )


def _lost(found: Found, layouts: Sequence[Layout]) -> Section:
    rows, series = [], {}
    for layout in layouts:
        of = found[layout]
        whole = found.get(replace(layout, lost_cell=-1, lost_at_s=0.0), {})
        rows.append(
            (
                str(layout.cells),
                *(number(figure(of, name).mean, 4) for name in ("lost", "lost_begun")),
                percent(figure(of, "lost").mean / figure(of, "requests").mean, 2),
                percent(figure(of, "attainment").mean, 2),
                percent(figure(whole, "attainment").mean, 2) if whole else "–",
                number(figure(of, "ttft_p99_s").mean),
            )
        )
        series[f"{layout.cells} cells, one lost"] = _seconds(of)
        if whole and layout is layouts[0]:
            series[f"{layout.cells} cells"] = _seconds(whole)
    columns = (
        "cells",
        "requests in it",
        "of them begun",
        "of all",
        "promises kept",
        "... with all cells",
        "TTFT p99, s",
    )
    chart = drawing.lines(
        "Promises kept by the second in which a request came, per cent",
        series,
        drawing.linear("seconds since the run's beginning"),
        drawing.linear("kept, per cent", high=100.0),
        marks=(Mark(layouts[0].lost_at_s, "a cell is gone"),),
    )
    return Section(
        "lost",
        "When a cell is gone",
        "simulated",
        notes=(
            f"At {layouts[0].lost_at_s:g} s one cell vanishes with everything in it, and does not even refuse"
            f" connections. Doors notice after {CONNECT_S:g} s without a connection, at the latest after 1.5 s without"
            " a status; clients whose answer broke off ask again a second later, and their time to a first token counts"
            " from their first question. What is left has to carry all the load.",
        ),
        tables=(Table("One cell of several dies", columns, tuple(rows)),),
        figures=(chart,),
    )


def _seconds(rows: Mapping[int, Row]) -> list[tuple[float, float]]:
    """Means over seeds."""
    kept = [row["kept_by_s"] for row in rows.values()]
    means = [estimate([each[at] for each in kept if each[at] >= 0]) for at in range(min(map(len, kept), default=0))]
    return [(at + 0.5, 100 * each.mean) for at, each in enumerate(means)]


def _rests(found: Found, first: Any) -> Section:
    seconds = f"{first.duration_s:g} s of traffic a run; " if first is not None else ""
    total = sum(row["requests"] for rows in found.values() for row in rows.values())
    return Section(
        "rests",
        "What was set here",
        "simulated",
        notes=(
            f"- {seconds}{total:,} requests in all runs together. Three of four requests are interactive and want their"
            " first token within 2 s, the others within a minute; a tenth have images (2.8 each); lengths as in"
            " `burst.toml`.",
            "- A cell is a whole simulated mesh: its own queue manager with the planner (its search alone, a plan every"
            f" {PLANNING['replan_s']:g} s at most), heartbeats, encoders, instances. A door knows of it what a status"
            f" says, {STATUS_S:g} s old at most.",
            "- Encoders and instances are dealt to the cells as evenly as whole ones allow: of 16 cells eight have 63"
            " GPUs and eight 62.",
            "- A door adds no time of its own, and the wide area between cells is not modelled. Goodput counts promises"
            " kept for each second of traffic.",
        ),
    )


def _list(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts[:-1])) + (" and " if len(counts) > 1 else "") + str(counts[-1])
