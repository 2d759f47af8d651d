"""The sections of the decision transformer's report."""

import math

import numpy as np

from headrace.characterize import drawing
from headrace.characterize.document import Figure, Section, Table, number, percent
from headrace.control.tasks import relative
from headrace.training.decision.evaluate import Beside, beside
from loadtest.reproduce.decision_figures import Study, costs
from loadtest.reproduce.decision_runs import EXPERT, TARGETS
from loadtest.reproduce.decision_wrong import EACH, EXPERTS, KEPT

NAMES = {"lm_lora": "language model", "scratch": "from scratch", "random_lora": "random, frozen"}
OTHERS = {"none": "no control", "hinf": "H-infinity", "mpc": "MPC", "pid": "PID", "kalman": "Kalman"}
ZERO = (
    ("demos", "scratch"),
    ("demos", "lm_lora"),
    ("demos", "random_lora"),
    ("padded", "scratch"),
    ("padded", "lm_lora"),
)
GUARDED = ("scratch", "lm_lora")
COPYCAT = (
    "With one step of context no former action is seen. With more, the last action tells the next one so well that a"
    " network can copy itself and hardly look at the plant (copycats: de Haan and others 2019). Nothing here separates"
    " that from other causes; the thermal plant, where most networks cost as much as no control, looks like it."
)
CLOSE, LOST = 1.2, 10.0  # times the expert's cost, in sentences
DRAWN_MOST = 100.0  # ratios beyond are runaways: a chart would show nothing else


def all_of(study: Study) -> tuple[Section, ...]:
    sections = [_experts(study), _demonstrations(study), _initialisation(study)]
    if study.row("context", "scratch", study.most, 1) or study.row("context", "lm_lora", study.most, 1):
        sections.append(_context(study))
    sections.append(_targets(study))
    sections.append(_zero_shot(study))
    if study.row("wrong", "scratch", KEPT):
        sections.append(_wrong(study))
    sections += [_guard(study), _steps(study)]
    return tuple(sections)


def _experts(study: Study) -> Section:
    rows = []
    for task in study.tasks:
        row = study.expert(task)
        reference = costs(row[EXPERT])
        others = (_told(beside(costs(row[name]), reference)) if name in row else "–" for name in OTHERS)
        predicted = f"{number(row['expected'])}; {number(row['known_state'])}" if "expected" in row else "–"
        violated = percent(row[EXPERT]["violations"], 2)
        rows.append((task, number(float(reference.mean())), predicted, *others, violated))
    columns = ("task", "LQG's cost", "predicted; state known", *OTHERS.values(), "LQG violates")
    note = "Costs of an episode, mean over the seeds; others as ratio to the LQG on the same seeds, 95 % interval."
    notes = (
        "The LQG's filter starts from the mean and covariance of first states; controlgym's starts at the true state."
        " Its predicted cost and the cost of a regulator that knows the state (a lower bound) are exact for the task.",
        "H-infinity: the game's gain on the same filter. MPC: 15 steps, bounded actions, solved as a quadratic program."
        " PID: tuned by search on the outputs; it does not stabilise every seed of ac3.",
        "thermal: the controllers of control/thermal with their kind's constants, whatever the plant's are; Kalman is"
        " a power budget on a filter.",
    )
    return Section("experts", "The experts", "simulated", (), notes, (Table("Experts", columns, tuple(rows), note),))


def _demonstrations(study: Study) -> Section:
    tables, figures = [], []
    for body in study.bodies:
        rows = [(task, *(_told(study.ratio(body, demos, task)) for demos in study.demos)) for task in study.tasks]
        tables.append(Table(f"Cost beside the expert: {NAMES[body]}", ("task", *map(str, study.demos)), tuple(rows)))
    for task in study.tasks:
        figures.append(_chart(study, task))
    notes = (
        "Ratio of mean costs on the same seeds, 95 % interval by paired bootstrap; columns: demonstrations of a task."
        " One network is trained on all tasks at once. In brackets the share of seeds that cost more than ten times the"
        " expert.",
        "Each cell is one training: intervals are over plants' seeds, not over trainings, and what is not monotonous in"
        " a row is mostly that.",
        f"Charts stop at {DRAWN_MOST:g}.",
    )
    findings = tuple(_reached(study, body) for body in study.bodies)
    return Section(
        "demonstrations", "How many demonstrations", "simulated", findings, notes, tuple(tables), tuple(figures)
    )


def _reached(study: Study, body: str) -> str:
    ratios = {task: study.ratio(body, study.most, task).ratio for task in study.tasks}
    close = [task for task, ratio in ratios.items() if ratio <= CLOSE]
    lost = [task for task, ratio in ratios.items() if ratio > LOST]
    return (
        f"{NAMES[body]}, {study.most} demonstrations: at most {CLOSE:g} times the expert's cost on {_list(close)}; more"
        f" than {LOST:g} times on {_list(lost)}."
    )


def _chart(study: Study, task: str) -> Figure:
    lines = {}
    for body in study.bodies:
        points = [(float(demos), study.ratio(body, demos, task).ratio) for demos in study.demos]
        lines[NAMES[body]] = [(at, min(ratio, DRAWN_MOST)) for at, ratio in points if not math.isnan(ratio)]
    return drawing.lines(
        f"Cost over demonstrations: {task}",
        lines,
        drawing.logarithmic("demonstrations"),
        drawing.logarithmic("cost beside the expert"),
    )


def _initialisation(study: Study) -> Section:
    rows = []
    for task in study.tasks:
        losses = [study.of(study.row("demos", body, study.most), task) for body in study.bodies]
        rows.append(
            (
                task,
                _told(study.between("lm_lora", "scratch", task)),
                _told(study.between("lm_lora", "random_lora", task)),
                *(number(each["loss"]) if each else "–" for each in losses),
                *(percent(each["violations"], 2) if each else "–" for each in losses),
            )
        )
    findings = tuple(_between(study, other) for other in study.bodies if other != "lm_lora")
    heads = tuple(f"loss, {NAMES[body]}" for body in study.bodies)
    violated = tuple(f"violates, {NAMES[body]}" for body in study.bodies)
    columns = ("task", "cost, language model / from scratch", "cost, language model / random", *heads, *violated)
    notes = (
        f"With {study.most} demonstrations. Losses: squared error of actions on demonstrations not trained on,"
        " beside the actions' variance.",
        "Random: the same layers with each matrix's entries in random order, frozen, with the same adapters.",
    )
    tables = [Table("Initialisations", columns, tuple(rows))]
    longer = study.row("longer", "scratch", study.most)
    if longer:
        again = [
            (
                task,
                _told(study.ratio("scratch", study.most, task)),
                _told(study.beside_expert(study.of(longer, task), task)),
            )
            for task in study.tasks
        ]
        tables.append(Table("From scratch, for longer", ("task", "as above", "three times the steps"), tuple(again)))
    return Section("initialisation", "Which weights to begin with", "simulated", findings, notes, tuple(tables))


def _between(study: Study, other: str) -> str:
    told = {task: study.between("lm_lora", other, task) for task in study.tasks}
    less = [task for task, each in told.items() if each.high < 1.0]
    more = [task for task, each in told.items() if each.low > 1.0]
    return f"The language model costs surely less than {NAMES[other]} on {_list(less)}, surely more on {_list(more)}."


def _context(study: Study) -> Section:
    rows = []
    for task in study.tasks:
        cells = []
        for body in ("scratch", "lm_lora"):
            cells += [_told(study.ratio(body, study.most, task, "context", each)) for each in (1, 5)]
            cells.append(_told(study.ratio(body, study.most, task)))
        rows.append((task, *cells))
    columns = ("task", *(f"{NAMES[body]}, {each}" for body in ("scratch", "lm_lora") for each in (1, 5, 20)))
    return Section(
        "context", "How many steps of context", "simulated", (), (COPYCAT,), (Table("Context", columns, tuple(rows)),)
    )


def _targets(study: Study) -> Section:
    row, rows = study.row("demos", "scratch", study.most), []
    for task in study.tasks:
        cells = {1.0: _told(study.ratio("scratch", study.most, task))}
        for times in TARGETS:
            told = study.of(row, task, "targets", f"{times:g}")
            cells[times] = _told(study.beside_expert(told, task))
        rows.append((task, *(cells[each] for each in sorted(cells))))
    columns = ("task", *(f"{each:g} × best" for each in sorted((1.0, *TARGETS))))
    notes = (
        "The return that is asked for at the beginning, as a multiple of the best demonstration's cost; what is left of"
        " it is cut to what the data had at that step, so that asking for more than the best is asking for the best.",
    )
    table = Table("Target returns, from scratch", columns, tuple(rows))
    return Section("targets", "Prompting by the target return", "simulated", (), notes, (table,))


def _zero_shot(study: Study) -> Section:
    rows = []
    for task in study.tasks:
        cells = [_told(study.zero_shot(body, task, part)) for part, body in ZERO]
        rows.append((f"{task} to {relative(task).name}", *cells))
    kinds = {"demos": "own embedders", "padded": "shared"}
    columns = ("to", *(f"{kinds[part]}, {NAMES[body]}" for part, body in ZERO))
    notes = (
        "Beside the relative's own LQG, which knows its model. Own embedders: the task's, with its scales, where sizes"
        " are the same. Shared: one padded set of embedders for all tasks; scales of one episode of the relative's"
        " expert, on which no weight is trained.",
    )
    return Section(
        "zero-shot", "Plants never seen", "simulated", (), notes, (Table("Zero-shot", columns, tuple(rows)),)
    )


def _wrong(study: Study) -> Section:
    rows = []
    for task in study.tasks:
        middle, best = study.wrong(task)
        right = costs(study.expert(task)[EXPERT])
        cells = [_told(beside(costs(each), right)) for each in (middle, best)]
        pairs = (("scratch", "wrong"), ("scratch", "wrong-any"), ("lm_lora", "wrong"))
        cells += [_told(study.beside_wrong(body, part, task)) for body, part in pairs]
        rows.append((task, *cells, _told(study.beside_wrong("scratch", "wrong", task, best=True))))
    less = {
        best: [task for task in study.tasks if study.beside_wrong("scratch", "wrong", task, best=best).high < 1.0]
        for best in (False, True)
    }
    findings = (
        f"From scratch, on the best returns, it costs surely less than the middle expert on {_list(less[False])}, and"
        f" less than the best expert on {_list(less[True])}.",
    )
    columns = (
        "task",
        "middle wrong expert / exact",
        "best wrong expert / exact",
        "scratch, best returns / middle",
        "scratch, any returns / middle",
        "language model, best returns / middle",
        "scratch, best returns / best expert",
    )
    notes = (
        f"{EXPERTS} experts with wrong models (four controllers on the thermal plant), {EXPERTS * EACH} episodes in"
        f" all; {KEPT} are kept, those with the best returns or any. Middle: by cost on the judged seeds. Best expert:"
        " by the mean cost of its demonstrations, which needs no network.",
        "Best returns are also those of easy first states: where chance rules, a return tells luck from skill only in"
        " part.",
    )
    return Section(
        "wrong",
        "Experts whose models are wrong",
        "simulated",
        findings,
        notes,
        (Table("Mismatch", columns, tuple(rows)),),
    )


def _guard(study: Study) -> Section:
    rows = []
    for task in study.tasks:
        cells = []
        for body in GUARDED:
            told = study.of(study.row("demos", body, study.most), task) or {}
            share = percent(told["fallbacks"], 1) if "fallbacks" in told else "–"
            cells += [_told(study.beside_expert(told.get("guarded"), task)), share]
        rows.append((task, *cells))
    columns = ("task", *(f"{NAMES[body]}{end}" for body in GUARDED for end in ("", ": by the expert")))
    notes = (
        "The expert acts wherever an action is outside the 0.1 to 99.9 % quantiles of those in the data, or the return"
        " that is left outside its range there. The best return is promised: most episodes use it up, and from then on"
        " the expert acts.",
    )
    return Section(
        "guard", "With the expert to fall back on", "simulated", (), notes, (Table("Guarded", columns, tuple(rows)),)
    )


def _steps(study: Study) -> Section:
    rows = []
    for body in study.bodies:
        row = study.row("demos", body, study.most)
        if row and "step_ms" in row:
            took = np.array(row["step_ms"])
            rows.append(
                (
                    NAMES[body],
                    f"{row['trained']:,}",
                    number(float(np.median(took))),
                    number(float(np.quantile(took, 0.99))),
                )
            )
    table = Table(
        "A step",
        ("body", "trained weights", "median, ms", "P99, ms"),
        tuple(rows),
        "One plant, one thread, its context full; other processes ran beside it.",
    )
    return Section("steps", "What a step takes", "measured", (), (), (table,))


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _told(each: Beside) -> str:
    if math.isnan(each.ratio):
        return "–"
    text = f"{_number(each.ratio)} ({_number(each.low)}–{_number(each.high)})"
    return f"{text} [{percent(each.away)}]" if each.away > 0 else text


def _number(value: float) -> str:
    return f"{value:.1e}" if abs(value) >= 1e4 else number(value)
