"""The comparison as rows of text: policies down, figures across, cut into blocks where the terminal is narrower."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.report.compare import Compared, Estimate, class_names
from headrace.report.units import COUNT, GPU_HOURS, JOULES, RATE, SECONDS, SHARE, Unit, texts, unit_for

_GAP = 2


@dataclass(frozen=True, slots=True)
class Figure:
    """A column: what it is, in which units, and whether more of it is better (0: neither)."""

    key: str  # of Result.summary(), or "class:<name>"
    label: str  # in full
    head: str  # in two short lines
    sub: str
    units: tuple[Unit, ...]
    better: int = 0
    optional: bool = False  # shown where at least one policy has some of it


FIGURES = (
    Figure("requests", "Requests", "requests", "", COUNT),
    Figure("finished", "Finished", "finished", "", COUNT, +1),
    Figure("attainment", "Finished, first token in time", "in time", "all", SHARE, +1),
    Figure("goodput_rps", "Goodput", "goodput", "", RATE, +1),
    Figure("ttft_p50_s", "Time to first token, median", "TTFT", "p50", SECONDS, -1),
    Figure("ttft_p99_s", "Time to first token, p99", "TTFT", "p99", SECONDS, -1),
    Figure("tbt_p50_s", "Time between tokens, median", "TBT", "p50", SECONDS, -1),
    Figure("tbt_p99_s", "Time between tokens, p99", "TBT", "p99", SECONDS, -1),
    Figure("jct_mean_s", "Whole request, mean", "whole", "mean", SECONDS, -1),
    Figure("jct_p99_s", "Whole request, p99", "whole", "p99", SECONDS, -1),
    Figure("gpu_hours", "GPU time", "GPU time", "", GPU_HOURS, -1),
    Figure("joules", "Energy of the GPUs", "energy", "", JOULES, -1),
    Figure("utilisation", "LLM workers compute, of the time that they are up", "LLMs", "busy", SHARE, optional=True),
    Figure("swaps", "Models loaded in the place of another", "models", "loaded", COUNT, optional=True),
    Figure("evictions", "Running requests evicted", "evicted", "", COUNT, optional=True),
    Figure("moves", "Evicted requests that went on elsewhere", "moved", "", COUNT, optional=True),
    Figure("scalings", "Decisions of the autoscaler", "scaled", "", COUNT, optional=True),
    Figure("wall_s", "Simulating took", "simulated", "in", SECONDS),
    Figure("sim_requests_per_s", "Simulated requests", "simulated", "requests", RATE),
)


@dataclass(frozen=True, slots=True)
class Column:
    figure: Figure
    unit: Unit
    estimates: tuple[Estimate, ...]  # one a policy

    @property
    def head(self) -> tuple[str, str]:
        """Two lines: what, and which of it in which unit."""
        return self.figure.head, ", ".join(part for part in (self.figure.sub, self.unit.name) if part)

    def cells(self) -> list[str]:
        return texts(self.estimates, self.unit)

    def best(self) -> list[bool]:
        """Whose figure is the best, or as good as the best as far as the seeds can tell."""
        sign = self.figure.better
        known = [each for each in self.estimates if each.mean == each.mean]
        if not sign or len(known) < 2 or len({each.mean for each in known}) == 1:
            return [False] * len(self.estimates)
        top = max(known, key=lambda each: sign * each.mean)
        return [
            each.mean == each.mean and sign * (top.mean - each.mean) <= top.sure + each.sure for each in self.estimates
        ]


def columns(compared: Sequence[Compared]) -> list[Column]:
    """Figures in the order in which they are asked for; attainment by class beside attainment."""
    found = []
    for figure in FIGURES:
        estimates = [each.figure(figure.key) for each in compared]
        if figure.optional and not any(each.mean > 0 for each in estimates):  # nor where nothing is known
            continue
        found.append(_column(figure, estimates))
        if figure.key == "attainment":
            for name in class_names(compared):
                one = Figure(f"class:{name}", f"of {name}", "in time", name, SHARE, +1)
                found.append(_column(one, [each.attainment(name) for each in compared]))
    return found


def _column(figure: Figure, estimates: Sequence[Estimate]) -> Column:
    return Column(figure, unit_for([each.mean for each in estimates], figure.units), tuple(estimates))


def lines(compared: Sequence[Compared], width: int) -> list[str]:
    """The table as lines of at most `width` characters where a policy's name and one column fit into that."""
    names = [each.policy for each in compared]
    rows = ["", "policy", *names]
    stub = [cell.ljust(max(map(len, rows))) for cell in rows]
    blocks: list[list[list[str]]] = [[]]
    left = width - len(stub[0])
    for column in columns(compared):
        cells = [*column.head, *column.cells()]
        wide = max(map(len, cells))
        if wide + _GAP > left and blocks[-1]:
            blocks.append([])
            left = width - len(stub[0])
        blocks[-1].append([cell.rjust(wide) for cell in cells])
        left -= wide + _GAP
    return [line for at, block in enumerate(blocks) for line in ([""] if at else []) + _block(stub, block)]


def _block(stub: Sequence[str], block: Sequence[Sequence[str]]) -> list[str]:
    found = [(" " * _GAP).join([first, *rest]).rstrip() for first, *rest in zip(stub, *block, strict=True)]
    rule = "─" * max(map(len, found))
    return [*found[:2], rule, *found[2:]]
