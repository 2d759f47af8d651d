"""What an abort storm has shown: the table, the verdict against what is wanted, and the same as JSON."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from headrace.cli.view import Console
from loadtest.benches.report import percentile
from loadtest.drills.overload_report import Check, judge
from loadtest.drills.storm import Storm, Stormy

BACK_S = 2.0
KEPT = 0.95  # of the steady load is answered as it comes
SLOW_TIMES, SLOW_S = 2.0, 0.25  # a first token is slow beyond so many times the usual p99, and so much more
FREE_S = 5.0
STANDING_MORE = 8  # file descriptors: a process opens a few for its own sake, such as connections to its peers


def usual(found: Stormy) -> tuple[float, float]:
    """Before the first storm: answers a second, and the 99th percentile of the time to a first token."""
    until_s = found.storms[0].left_s - 1.0 if found.storms else math.inf
    until_s = min(until_s, found.scenario.duration_s)
    from_s = min(1.0, until_s / 2)  # the first second has no answers yet
    before = [shot for shot in found.steady if shot.whole and from_s <= shot.end_s <= until_s]
    return len(before) / (until_s - from_s), percentile([shot.ttft_s for shot in before], 0.99)


def back_after_s(found: Stormy, storm: Storm) -> float:
    """When the last request was due that still was slow, or was refused; 0: none was."""
    _, usual_s = usual(found)
    slow_s = max(SLOW_TIMES * usual_s, usual_s + SLOW_S)
    until_s = storm.over_s + found.scenario.duration_s
    after = [shot for shot in found.steady if storm.over_s <= shot.due_s <= until_s]
    slow = [shot.due_s for shot in after if not (shot.whole and shot.ttft_s <= slow_s)]
    return max(slow, default=storm.over_s) - storm.over_s


def rate_after(found: Stormy, storm: Storm) -> float:
    """Answers a second from BACK_S after it on, to the next one."""
    from_s = storm.over_s + min(BACK_S, found.scenario.duration_s / 2)
    until_s = storm.over_s + found.scenario.duration_s
    return sum(shot.whole and from_s <= shot.end_s <= until_s for shot in found.steady) / (until_s - from_s)


def grown(found: Stormy) -> dict[str, int]:
    """What stands now and did not before."""
    more = {name: count - found.before.get(name, 0) for name, count in found.after.items()}
    return {name: count for name, count in more.items() if count > (STANDING_MORE if "file" in name else 0)}


def verdict(found: Stormy) -> list[Check]:
    worst_s = max((back_after_s(found, storm) for storm in found.storms), default=0.0)
    least = min((rate_after(found, storm) for storm in found.storms), default=0.0) / found.rate_rps
    gone_s = max((storm.gone_s for storm in found.storms), default=0.0)
    lost = [shot for shot in found.steady if not (shot.whole or shot.refused)]
    more = grown(found)
    there = min((storm.there / storm.asked for storm in found.storms), default=0.0)
    return [
        Check("of each storm's requests there when it breaks", "90%", f"{there:.0%}", there >= 0.9),
        Check("answers to the steady load from 2 s after on", f"{KEPT:.0%}", f"{least:.1%}", least >= KEPT),
        Check("slow first tokens end after", f"{BACK_S:g} s", f"{worst_s:.2f} s", worst_s <= BACK_S),
        Check("the queue manager has none of them after", f"{BACK_S:g} s", f"{gone_s:.2f} s", gone_s <= BACK_S),
        Check("held when all is over", "nothing", str(dict(found.held) or "nothing"), not found.held),
        Check("... after", f"{FREE_S:g} s", f"{found.free_s:.2f} s", found.free_s <= FREE_S),
        Check("more than before the storms", "nothing", str(more or "nothing"), not more),
        Check("steady requests that failed", "0", f"{len(lost)} of {len(found.steady)}", not lost),
    ]


def figures(found: Stormy) -> dict[str, Any]:
    rate, usual_s = usual(found)
    assert found.watch is not None
    return {
        "saturation_rps": found.saturation_rps,
        "steady_rps": found.rate_rps,
        "answers_rps": rate,
        "ttft_p99_s": usual_s,
        "storms": [
            asdict(storm) | {"back_s": back_after_s(found, storm), "answers_rps": rate_after(found, storm)}
            for storm in found.storms
        ],
        "held": dict(found.held),
        "free_s": found.free_s,
        "before": dict(found.before),
        "after": dict(found.after),
        "memory_mb": {
            name: [found.watch.seen[0].memory_mb[name], found.watch.seen[-1].memory_mb.get(name)]
            for name in found.watch.seen[0].memory_mb
        },
        "cpu_cores": {name: spent / found.watch.took_s for name, spent in found.watch.cpu_s.items()},
        "late_p99_ms": 1e3 * percentile([shot.late_s for shot in found.steady], 0.99),
    }


def show(console: Console, found: Stormy, checks: Iterable[Check]) -> None:
    rate, usual_s = usual(found)
    rows = [("before", "", "", "", "", "", f"{rate:.2f}", "")]
    for number, storm in enumerate(found.storms, 1):
        rows.append(
            (
                f"storm {number}",
                f"{storm.there} of {storm.asked}",
                str(storm.streaming),
                f"{storm.leaving_s:.2f}",
                f"{storm.gone_s:.2f}",
                f"{back_after_s(found, storm):.2f}",
                f"{rate_after(found, storm):.2f}",
                f"{storm.http}, {storm.asked - storm.http}",
            )
        )
    heads = ("", "there", "streaming", "left in s", "gone after s", "steady is back after s", "answers/s", "HTTP, gRPC")
    title = f"{found.scenario.name}: {found.rate_rps:.1f} requests/s steady, first token p99 {usual_s:.2f} s"
    console.table(title, heads, rows)
    late_ms = 1e3 * percentile([shot.late_s for shot in found.steady], 0.99)
    console.note(f"this client sent the steady load up to {late_ms:.0f} ms late (p99)")
    assert found.watch is not None
    cpu = {name: spent / found.watch.took_s for name, spent in found.watch.cpu_s.items()}
    console.note("CPU, cores: " + ", ".join(f"{name} {spent:.2f}" for name, spent in cpu.items()))
    judge(console, checks)
