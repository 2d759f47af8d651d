"""What one run of the decision transformer's study is: a network trained once and judged on every task, or experts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from headrace.control.experts import EXPERTS, THERMAL, expert
from headrace.control.experts.lqg import Lqg
from headrace.control.tasks import Episodes, LinearTask, Task, play, relative, task
from headrace.training.decision.bodies import BODIES
from headrace.training.decision.data import Demonstrations, Scale, padded, retarget
from headrace.training.decision.evaluate import step_ms
from headrace.training.decision.fit import Recipe, held_out, train
from headrace.training.decision.network import Space
from headrace.training.decision.roll import Guarded, Policy
from loadtest.reproduce import decision_wrong

SHOWN_FROM, HELD_FROM, JUDGED_FROM = 10_001, 30_001, 55_001  # seeds of demonstrations, of the loss, of costs
HELD = 20
EXPERT = "lqg"  # of the task's own model; on the thermal plant control/thermal's, whose model is not the plant's
STEPS_TIMED = 300
TARGETS = (0.5, 1.5, 3.0)  # times the best return's cost; 1 is what everything else asks for


@dataclass(frozen=True, slots=True)
class Experts:
    """Every expert on a task, its relative as well."""

    task: str
    seeds: int


@dataclass(frozen=True, slots=True)
class Trained:
    """part: demos, context, longer, padded, wrong (returns chosen), wrong-any (not chosen)."""

    part: str
    body: str
    tasks: tuple[str, ...]
    demos: int
    context: int
    steps: int
    rate: float
    seeds: int
    more: bool = False  # also guarded, other targets, relatives


Job = Experts | Trained
Row = dict[str, Any]


def work(job: Job) -> Row:
    torch.set_num_threads(1)
    return _experts(job) if isinstance(job, Experts) else _trained(job)


def _judged(seeds: int) -> range:
    return range(JUDGED_FROM, JUDGED_FROM + seeds)


# --- experts ---


def _experts(job: Experts) -> Row:
    own, other = task(job.task), relative(job.task)
    names = EXPERTS if isinstance(own, LinearTask) else THERMAL
    row: Row = {name: _told(play(own, expert(name, own).begin(job.seeds), _judged(job.seeds))) for name in names}
    row["relative"] = _told(play(other, expert(EXPERT, other).begin(job.seeds), _judged(job.seeds)))
    row["shape"] = [own.observations, own.actions, own.steps]
    if isinstance(own, LinearTask):
        solved = Lqg(own, own.model)
        row["expected"], row["known_state"] = solved.expected_cost(), solved.bound()
    wrong = decision_wrong.wrong_experts(own)
    row["wrong"] = [_told(play(own, each.begin(job.seeds), _judged(job.seeds))) for each in wrong]
    row["wrong_shown"] = decision_wrong.shown_by(own, wrong)[1]
    return row


def _told(found: Episodes) -> Row:
    return {"costs": found.total.tolist(), "violations": float(found.violated.mean())}


# --- networks ---


def _trained(job: Trained) -> Row:
    shown = {name: _shown(job, name) for name in job.tasks}
    scales = {name: Scale.of(each) for name, each in shown.items()}
    own = {name: Space(task(name).observations, task(name).actions) for name in job.tasks}
    everyone = _padded(own) if job.part == "padded" else None
    spaces = own if everyone is None else {"all": everyone}
    data = {name: Demonstrations(each, scales[name], everyone) for name, each in shown.items()}
    recipe = Recipe(steps=job.steps, rate=job.rate, context=job.context)
    net = train(BODIES[job.body], spaces, data, recipe)
    row: Row = {"trained": net.count_trained(), "tasks": {}}
    for name in job.tasks:
        space = name if everyone is None else "all"
        policy = Policy(net, space, own[name], scales[name], job.context, everyone)
        found = _told(play(task(name), policy.begin(job.seeds), _judged(job.seeds)))
        held = Demonstrations(_demonstrations(name, HELD_FROM, HELD), scales[name], everyone)
        found["loss"] = held_out(net, space, held, job.context, seed=1)
        if job.more:
            found |= _more(job, name, policy)
        row["tasks"][name] = found
    if job.more:
        row["step_ms"] = step_ms(policy, STEPS_TIMED)
    return row


def _more(job: Trained, name: str, policy: Policy) -> Row:
    if job.part == "padded":
        return {"relative": _zero_shot(job, name, policy)}
    own = task(name)
    found: Row = {}
    if job.body != "random_lora":  # a control; its own figures say enough
        guarded = Guarded(policy.begin(job.seeds), expert(EXPERT, own).begin(job.seeds))
        found = {"guarded": _told(play(own, guarded, _judged(job.seeds)))}
        found["fallbacks"] = guarded.fallbacks / guarded.asked
    if policy.own == Space(relative(name).observations, relative(name).actions):
        found["relative"] = _zero_shot(job, name, policy)
    if job.body == "scratch":
        found["targets"] = {f"{times:g}": _asking(job, policy, own, times) for times in TARGETS}
    return found


def _asking(job: Trained, policy: Policy, own: Task, times: float) -> Row:
    asked = Policy(policy.net, policy.space, policy.own, retarget(policy.scale, times), policy.context)
    return _told(play(own, asked.begin(job.seeds), _judged(job.seeds)))


def _zero_shot(job: Trained, name: str, policy: Policy) -> Row:
    """On the relative. Through its task's own embedders the scales are the task's; padded, they are of one episode of
    the relative's expert, on which no weight is trained."""
    other, scale, own = relative(name), policy.scale, policy.own
    if policy.padded is not None:
        scale = Scale.of(play(other, expert(EXPERT, other).begin(1), [SHOWN_FROM]))
        own = Space(other.observations, other.actions)
    moved = Policy(policy.net, policy.space, own, scale, policy.context, policy.padded)
    return _told(play(other, moved.begin(job.seeds), _judged(job.seeds)))


def _padded(own: Mapping[str, Space]) -> Space:
    """Wide enough for the tasks and their relatives."""
    others = [relative(name) for name in own]
    return padded(
        max(*(each.observations for each in own.values()), *(each.observations for each in others)),
        max(*(each.actions for each in own.values()), *(each.actions for each in others)),
    )


# --- demonstrations ---


def _shown(job: Trained, name: str) -> Episodes:
    if not job.part.startswith("wrong"):
        return _demonstrations(name, SHOWN_FROM, job.demos)
    choose: Callable[[Episodes, int], Episodes] = decision_wrong.best if job.part == "wrong" else decision_wrong.anyhow
    own = task(name)
    shown, _ = decision_wrong.shown_by(own, decision_wrong.wrong_experts(own))
    return choose(shown, job.demos)


@lru_cache
def _demonstrations(name: str, first_seed: int, count: int) -> Episodes:
    own = task(name)
    return play(own, expert(EXPERT, own).begin(count), range(first_seed, first_seed + count))
