"""The sections of the report on equilibrium learning."""

from collections.abc import Mapping, Sequence

from headrace.characterize import drawing
from headrace.characterize.document import Section, Table, number
from headrace.report.compare import Estimate
from loadtest.reproduce.oftrl_reference import AT, BAND, SECONDS, SWAP_GAP, Row
from loadtest.reproduce.oftrl_runs import Gaps, Took, ends_slope
from loadtest.reproduce.oftrl_scaling import ETAS as SCALED
from loadtest.reproduce.oftrl_scaling import Point
from loadtest.reproduce.oftrl_swaps import ITERATIONS, PROVEN

NAMES = {
    "stage_oftrl": "stages, OFTRL",
    "stage_ftrl": "stages, FTRL",
    "smooth_oftrl": "smooth values, OFTRL",
    "smooth_ftrl": "smooth values, FTRL",
    "bm_log_barrier": "Blum-Mansour, log barrier",
    "adaptive": "adaptive pace",
    "hedge_myopic": "hedge, no value update",
    "hedge_current": "hedge, current values",
}
GAMES = {"random": "Random game (test A)", "cyclic": "Cyclic game (test B)"}
_SLOPES = (-1.2, -0.85)
_TIMES = 5.0
_HEDGE = "smooth OFTRL 0.5"
_UNSEEN = "adaptive"  # in a chart: it lies on smooth OFTRL


def gaps(of: Mapping[str, Mapping[str, Gaps]], etas: Mapping[str, float], seeds: Sequence[int]) -> Section:
    smooth, plain = of["cyclic"]["smooth_oftrl"], of["cyclic"]["smooth_ftrl"]
    last = smooth.at[-1]
    low, high = _SLOPES
    both = (smooth.slope(2), smooth.slope())
    ratio = [plain.mean(count)[last] / smooth.mean(count)[last] for count in (2, 0)]
    apart = max(abs(each["adaptive"].rows - each["smooth_oftrl"].rows).max() for each in of.values())
    findings = (
        f"Cyclic game: the slope of smooth OFTRL from {smooth.at[0]:,} to {last:,} iterations is {both[0]:.2f} (seeds 0"
        f" and 1) and {both[1]:.2f} (all {len(seeds)}); asked for: {low} to {high}.",
        f"There plain FTRL ends with {ratio[0]:.0f} times (seeds 0 and 1) and {ratio[1]:.0f} times (all) the gap of"
        f" OFTRL; asked for: at least {_TIMES:.0f}.",
        "The adaptive pace slows only where regret is very negative: its gaps differ from those of smooth OFTRL by at"
        f" most {number(apart)}, and the charts leave it out.",
        *(_current(game, by_name) for game, by_name in of.items()),
    )
    notes = (
        "Random: 2 players, 4 actions, 4 states, horizon 3. Cyclic: rock, paper, scissors with entries moved by up to"
        " 0.1, 2 states, horizon 2. Step sizes on raw rewards; Blum-Mansour's is not the proven one, which moves too"
        " little to be seen here. Stages are cut where a run is looked at.",
        f"Means of seeds {seeds[0]} to {seeds[-1]} with 95 % intervals; slopes by least squares over all columns,"
        " of the mean of seeds 0 and 1, and the mean of each seed's own.",
    )
    figures = tuple(
        drawing.lines(
            f"{GAMES[game]}: gap over iterations",
            {NAMES[name]: list(each.mean().items()) for name, each in by_name.items() if name != _UNSEEN},
            drawing.doubling("iterations"),
            drawing.logarithmic("gap"),
        )
        for game, by_name in of.items()
    )
    tables = tuple(_gap_table(GAMES[game], by_name, etas) for game, by_name in of.items())
    return Section("gaps", "How fast the gap closes", "computed", findings, notes, tables, figures)


def _current(game: str, by_name: Mapping[str, Gaps]) -> str:
    at = by_name["hedge_current"].at[-1]
    ours, theirs = (by_name[name].mean()[at] for name in ("smooth_oftrl", "hedge_current"))
    return (
        f"{GAMES[game]}: hedge on the values of the profile just played, for which no rate is known to us, ends at"
        f" {number(theirs)}, smooth OFTRL at {number(ours)} ({at:,} iterations, all seeds)."
    )


def _gap_table(title: str, by_name: Mapping[str, Gaps], etas: Mapping[str, float]) -> Table:
    columns = tuple(f"{at:,}" for at in next(iter(by_name.values())).at)
    rows = tuple(
        (
            NAMES[name],
            f"{etas[name]:g}",
            *(_with(figure) for figure in each.estimates().values()),
            f"{each.slope(2):.2f}",
            f"{each.slopes().mean:.2f} ± {each.slopes().half:.2f}",
        )
        for name, each in by_name.items()
    )
    return Table(title, ("learner", "eta", *columns, "slope, 2 seeds", "slope, all"), rows)


def beside(of: Mapping[str, Sequence[tuple[Row, dict[int, float]]]]) -> Section:
    tables, apart = [], 0.0
    for game, rows in of.items():
        cells = []
        for row, here in rows:
            apart = max(apart, *(abs(here[at] / there - 1.0) for at, there in zip(AT, row.gaps, strict=True)))
            found = (f"{number(here[at])} ({number(there)})" for at, there in zip(AT, row.gaps, strict=True))
            ends = f"{ends_slope(here, AT[0], AT[-1]):.2f} ({row.slope})"
            cells.append((f"{NAMES[row.learner]}, {row.eta:g}", *found, ends))
        columns = ("learner, eta", *(f"{at:,}" for at in AT), "slope, end to end")
        tables.append(Table(f"{GAMES[game]}: here (reference)", columns, tuple(cells)))
    within = "all within" if apart <= BAND else "not all within"
    findings = (
        f"The largest difference from a reference figure is {100 * apart:.1f} %: {within} {100 * BAND:.0f} %, about"
        " what its digits leave open.",
    )
    return Section("reference", "Beside the reference, seeds 0 and 1", "computed", findings, (), tuple(tables))


def swaps(
    markov: Mapping[str, Mapping[str, Sequence[float]]],
    symmetric: Mapping[str, Mapping[int, float]],
    moved: Mapping[str, tuple[Gaps, Gaps]],
) -> Section:
    proven = f"proven {PROVEN:.4f}"
    plain = symmetric[f"{proven}, plain averages"]
    at = tuple(next(iter(symmetric.values())))
    last, best = at[-1], min(moved, key=lambda name: moved[name][0].mean()[at[-1]])
    findings = (
        f"Shapley's game, proven step size, {ITERATIONS:,} iterations: swap gap"
        f" {number(symmetric[proven][ITERATIONS])}, with plain averages {number(plain[ITERATIONS])} (reference"
        f" {SWAP_GAP}; asked for: at most 0.001). This asks little: the start is forgotten, and what is left, even"
        " mixtures, is the equilibrium.",
        f"With entries moved by up to 0.1 it is not, and the proven step size has"
        f" {number(moved[proven][0].mean()[last])} after {last:,} iterations: it moves slowly. The least has step size"
        f" {best}, {number(moved[best][0].mean()[last])}; 0.001 is {_reached(moved[best][0].mean()[last])}. Larger"
        " steps let play go round, which raises the gap, and then it falls with 1 / T.",
        f"Smooth OFTRL there has a coarse gap of {number(moved[_HEDGE][1].mean()[last])} and a swap gap of"
        f" {number(moved[_HEDGE][0].mean()[last])}: it is no learner of correlated equilibria.",
    )
    columns = ("step size", *(f"{each:,}" for each in at))
    tables = [
        Table(
            "Shapley's game from a play off the even mixtures: swap gap",
            columns,
            tuple((name, *map(number, of.values())) for name, of in symmetric.items()),
        ),
        Table(
            "The same with entries moved: swap gap",
            columns,
            tuple((name, *(_with(each) for each in both[0].estimates().values())) for name, both in moved.items()),
        ),
        Table(
            "The same with entries moved: coarse gap",
            columns,
            tuple((name, *(_with(each) for each in both[1].estimates().values())) for name, both in moved.items()),
        ),
        Table(
            f"Swap gap on the Markov games after {AT[-1]:,} iterations",
            ("learner", *(GAMES[game] for game in markov)),
            tuple((NAMES[name], *(_with(Estimate(*of[name])) for of in markov.values())) for name in NAMES),
        ),
    ]
    figure = drawing.lines(
        "Shapley's game, entries moved: swap gap",
        {name: list(both[0].mean().items()) for name, both in moved.items()},
        drawing.doubling("iterations"),
        drawing.logarithmic("swap gap"),
    )
    return Section("swaps", "Correlated equilibria", "computed", findings, (), tuple(tables), (figure,))


def _reached(gap: float) -> str:
    return "reached" if gap <= 0.001 else "not reached"


def scaling(of: Mapping[str, Mapping[str, Sequence[Point]]], iterations: int, seeds: int) -> Section:
    figures, tables = [], []
    for size, by_name in of.items():
        times = {NAMES[name]: [(float(each.size), each.iteration_s * 1e6) for each in by_name[name]] for name in SCALED}
        lost = {NAMES[name]: [(float(each.size), each.gap.mean) for each in by_name[name]] for name in SCALED}
        across = drawing.doubling(size)
        figures.append(drawing.lines(f"Time by {size}", times, across, drawing.logarithmic("µs an iteration")))
        figures.append(drawing.lines(f"Gap by {size}", lost, across, drawing.logarithmic("gap, share of the horizon")))
        rows = tuple(
            (NAMES[name], *(f"{number(each.iteration_s * 1e6)} µs, {number(each.gap.mean)}" for each in by_name[name]))
            for name in SCALED
        )
        columns = (f"{size}", *(str(each.size) for each in next(iter(by_name.values()))))
        tables.append(Table(f"Time of an iteration and gap, by {size}", columns, rows))
    notes = (
        f"One size at a time, the others as in test A; {iterations:,} iterations, {seeds} seeds, step sizes as above."
        " Gaps as a share of the horizon. Times are of learning alone, in processor seconds, the fastest seed's.",
        "The payoff table has N x H x S x A^N cells and transitions S times more than a player's share of it, which is"
        " where the cost of actions and players comes from.",
    )
    return Section("scaling", "Scaling", "measured", (), notes, tuple(tables), tuple(figures))


def published(of: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Section:
    rows = tuple(
        (
            f"{NAMES[name]}, {samples} samples",
            number(each["gap"]),
            number(each["gap_of_all"]),
            number(each["informed"]),
            f"{each['kib']:.0f}",
        )
        for name, by_samples in of.items()
        for samples, each in by_samples.items()
    )
    columns = ("policy", "gap of the table", "gap of the certified policy", "gain if the index is known", "KiB")
    notes = (
        "Random game, 1,600 iterations, seeds 0 and 1. The certified policy here plays stages that were finished, of"
        " smooth learning its chain; a table draws anew at each step, so of smooth learning it is another policy, whose"
        " gap is worked out by itself. If the index is known: what a player gains that computes it from the shared seed"
        " and answers it.",
    )
    return Section("published", "What is sent to players", "computed", (), notes, (Table("Tables", columns, rows),))


def seconds(of: Mapping[str, Took]) -> Section:
    low, high = SECONDS
    clock_s, processor_s = max(each.clock_s for each in of.values()), max(each.processor_s for each in of.values())
    findings = (
        f"1,600 iterations of test A with gap checks at 50 to 1,600, both seeds: at most {processor_s:.2f} s of one"
        f" processor, {clock_s:.2f} s on the clock; the slow program needs {low:.0f} to {high:.0f} s. Asked for: at"
        f" most {low / 10:.1f} s.",
    )
    notes = ("For each seed the least of five times. The clock also counts what others do on the machine.",)
    rows = tuple((name, f"{each.clock_s:.3f}", f"{each.processor_s:.3f}") for name, each in of.items())
    table = Table("Test A", ("learner, eta", "s on the clock", "s of a processor"), rows)
    return Section("seconds", "Seconds", "measured", findings, notes, (table,))


def _with(each: Estimate) -> str:
    return f"{number(each.mean)} ± {number(each.half, 2)}" if each.half == each.half else number(each.mean)
