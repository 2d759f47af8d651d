"""What an overload drill has shown: the table, the verdict against what is wanted, and the same as JSON."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.cli.view import Console
from headrace.report.units import NOTHING
from loadtest.benches.report import percentile
from loadtest.drills.overload import Level, Overload
from loadtest.drills.shots import Shot

GOODPUT_KEPT = 0.95  # at the last level, of the best one
LATE_S = 0.1  # of a send, at the 99th percentile: beyond, this client is measured too
CLIENT_BUSY = 0.8  # of a core
RETRY_S_MIN, RETRY_S_MAX = 0.001, 60.0  # sane: a client that is told more gives up or comes at once
MEMORY_MB_PER_REQUEST = 0.1  # that may stand in a queue: 40 bytes a prompt token and a stream, with room [I]
GROWN = ("gateway", "qm")  # processes whose memory a queue could fill


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is wanted."""

    what: str
    wanted: str
    found: str
    kept: bool


def retries_sane(shot: Shot) -> bool:
    """A refusal says when to come back, whole seconds rounding up what is exact."""
    told, exact = shot.retry_after_s, shot.retry_exact_s
    if not (RETRY_S_MIN <= exact <= RETRY_S_MAX):  # NaN fails
        return False
    return told == math.ceil(exact) if shot.via == "http" else abs(told - exact) < 0.01


def right_code(shot: Shot) -> bool:
    """Of whatever was not answered: only what overload explains, in the words of its protocol."""
    status = "429" if shot.via == "http" else "RESOURCE_EXHAUSTED"
    return (
        shot.status == status
        and bool(shot.reason)
        and shot.code in ("overloaded", "deadline_unreachable", "ttl_expired")
    )


def row(level: Level) -> dict[str, Any]:
    """The figures of a level."""
    shots, seen = level.shots, level.watch.seen
    unanswered = [shot for shot in shots if not shot.whole]
    late = [shot.late_s for shot in shots]
    waited = [shot.ttft_s for shot in shots if shot.whole]
    queued = [sum(one.queued.values()) for one in seen]
    return {
        "times": level.times,
        "offered": len(shots),
        "offered_rps": len(shots) / level.seconds,
        "accepted": len(shots) - len(unanswered),
        "answers_rps": level.answers_rps,
        "goodput_rps": level.goodput_rps,
        "refusals": dict(Counter(f"{shot.status} {shot.code} ({shot.reason})" for shot in unanswered if shot.refused)),
        "failures": dict(Counter(f"{shot.status} {shot.code}".strip() for shot in unanswered if not shot.refused)),
        "refusals_with_retry_after": sum(retries_sane(shot) for shot in unanswered if shot.refused),
        "retry_after_p50_s": percentile([shot.retry_exact_s for shot in unanswered if shot.refused], 0.5),
        "retry_after_max_s": max((shot.retry_exact_s for shot in unanswered if shot.refused), default=math.nan),
        "refusal_ms_p50": 1e3 * percentile([shot.end_s - shot.sent_s for shot in unanswered if shot.refused], 0.5),
        "tries": sum(shot.tries for shot in shots),
        "ttft_p50_s": percentile(waited, 0.5),
        "ttft_p99_s": percentile(waited, 0.99),
        "queue_max": max(queued, default=0),
        "queue_end": next(
            (count for one, count in zip(seen[::-1], queued[::-1], strict=True) if one.at_s <= level.seconds), 0
        ),
        "queue": [[round(one.at_s, 1), count] for one, count in zip(seen, queued, strict=True)],
        "memory_mb": {
            name: [seen[0].memory_mb[name], max(one.memory_mb.get(name, 0.0) for one in seen)] for name in _grown(seen)
        },
        "late_p50_ms": 1e3 * percentile(late, 0.5),
        "late_p99_ms": 1e3 * percentile(late, 0.99),
        "cpu_cores": {name: spent / level.watch.took_s for name, spent in level.watch.cpu_s.items()},
    }


def _grown(seen: Sequence[Any]) -> list[str]:
    names = seen[0].memory_mb if seen else {}
    return [name for name in names if name.startswith(GROWN)]


def verdict(found: Overload) -> list[Check]:
    levels = found.levels
    best, last = max(levels, key=lambda level: level.goodput_rps), levels[-1]
    kept = last.goodput_rps / best.goodput_rps if best.goodput_rps else 0.0
    refused = [shot for level in levels for shot in level.shots if shot.refused]
    others = [shot for level in levels for shot in level.shots if not (shot.whole or shot.refused)]
    rows = [row(level) for level in levels]
    limits = [one.limits for level in levels for one in level.watch.seen]
    bound = sum(limits[0].values()) if limits else 0
    queue = max(one["queue_max"] for one in rows)
    memory = _memory(rows)
    wrong = [shot for shot in refused if not right_code(shot)]
    untold = [shot for shot in refused if not retries_sane(shot)]
    return [
        Check(f"goodput at {last.times:g} x, of the best", f"{GOODPUT_KEPT:.0%}", f"{kept:.1%}", kept >= GOODPUT_KEPT),
        Check("the longest queue", f"{bound}", f"{queue}", queue <= bound),
        Check("memory for what stands in it, MB a request", f"{MEMORY_MB_PER_REQUEST:g}", *memory),
        Check("refusals with another code", "0", f"{len(wrong)} of {len(refused)}", not wrong),
        Check("refusals without a sane Retry-After", "0", f"{len(untold)} of {len(refused)}", not untold),
        Check("other failures", "0", f"{len(others)}", not others),
    ]


def _memory(rows: Sequence[dict[str, Any]]) -> tuple[str, bool]:
    """What gateway and queue manager grew by at the last level, over the requests that were there at once."""
    last = rows[-1]
    grown_mb = max((most - first for first, most in last["memory_mb"].values()), default=0.0)
    each = grown_mb / max(1, last["queue_max"])
    few = grown_mb < 16.0  # an interpreter's own comings and goings
    return f"{each:.2f} ({grown_mb:.0f} MB)", few or each <= MEMORY_MB_PER_REQUEST


def remarks(found: Overload) -> list[str]:
    """What a reader must know before trusting the figures."""
    said = []
    for level in found.levels:
        late_s = percentile([shot.late_s for shot in level.shots], 0.99)
        busy = level.watch.cpu_s.get("load", 0.0) / level.watch.took_s
        if late_s > LATE_S or busy > CLIENT_BUSY:
            said.append(
                f"at {level.times:g} x this client is part of what is measured: it sent up to {late_s:.2f} s late "
                f"(p99) and took {busy:.0%} of a core"
            )
    longest_s = max((shot.target_s for shot in found.levels[-1].shots), default=0.0)
    if found.scenario.duration_s * 2 / 3 < longest_s:
        said.append(
            f"a level of {found.scenario.duration_s:g} s is too short to see a queue longer than the class's "
            f"{longest_s:g} s: --seconds {3 * longest_s:g}"
        )
    return said


def figures(found: Overload) -> dict[str, Any]:
    return {
        "saturation_rps": found.saturation_rps,
        "levels": [row(level) for level in found.levels],
        "remarks": remarks(found),
    }


def show(console: Console, found: Overload, checks: Iterable[Check]) -> None:
    rows = [row(level) for level in found.levels]
    heads = (
        "load",
        "offered/s",
        "answers/s",
        "goodput/s",
        "refused",
        "queue max, end",
        "TTFT p50, p99 s",
        "Retry-After p50, max s",
        "sent late p99 ms",
    )
    cells = [
        (
            f"{one['times']:g} x",
            f"{one['offered_rps']:.1f}",
            f"{one['answers_rps']:.1f}",
            f"{one['goodput_rps']:.1f}",
            f"{sum(one['refusals'].values()) / max(1, one['offered']):.0%}",
            f"{one['queue_max']}, {one['queue_end']}",
            f"{_s(one['ttft_p50_s'])}, {_s(one['ttft_p99_s'])}",
            f"{_s(one['retry_after_p50_s'])}, {_s(one['retry_after_max_s'])}",
            f"{one['late_p99_ms']:.0f}",
        )
        for one in rows
    ]
    console.table(f"{found.scenario.name}: saturation {found.saturation_rps:.1f} requests/s", heads, cells)
    reasons = Counter[str]()
    for one in rows:
        reasons.update(one["refusals"])
        reasons.update({f"{name} [not a refusal]": count for name, count in one["failures"].items()})
    for name, count in reasons.most_common():
        console.note(f"{count} x {name}")
    cpu = rows[-1]["cpu_cores"]
    console.note("CPU at the last level, cores: " + ", ".join(f"{name} {spent:.2f}" for name, spent in cpu.items()))
    judge(console, checks)
    for text in remarks(found):
        console.note(text)


def judge(console: Console, checks: Iterable[Check]) -> None:
    told = [(check.what, check.wanted, check.found, "kept" if check.kept else "NOT KEPT") for check in checks]
    console.table("verdict", ("", "wanted", "found", ""), told)


def _s(seconds: float) -> str:
    return NOTHING if math.isnan(seconds) else f"{seconds:.2f}"
