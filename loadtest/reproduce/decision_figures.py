"""What is made of the runs: ratios to the expert on the same seeds, by task, body and number of demonstrations."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.training.decision.evaluate import Beside, beside
from loadtest.reproduce.decision_runs import EXPERT, Experts, Job, Trained
from loadtest.reproduce.decision_wrong import KEPT

Row = dict[str, Any]
NONE = Beside(*[float("nan")] * 5)


class Study:
    def __init__(self, tasks: Sequence[str], bodies: Sequence[str], found: Sequence[tuple[Job, Row]]) -> None:
        self.tasks, self.bodies = tuple(tasks), tuple(bodies)
        self._experts = {job.task: row for job, row in found if isinstance(job, Experts)}
        self._trained = [(job, row) for job, row in found if isinstance(job, Trained)]

    @cached_property
    def demos(self) -> tuple[int, ...]:
        return tuple(sorted({job.demos for job, _ in self._trained if job.part == "demos"}))

    @property
    def most(self) -> int:
        return self.demos[-1] if self.demos else 0

    def expert(self, task: str) -> Row:
        return self._experts[task]

    def row(self, part: str, body: str, demos: int, context: int = 20) -> Row | None:
        """Of one training; None where it has not been run."""
        for job, row in self._trained:
            if (job.part, job.body, job.demos, job.context) == (part, body, demos, context):
                return row
        return None

    def of(self, row: Row | None, task: str, *keys: str) -> Row | None:
        found: Any = row and row["tasks"].get(task)
        for key in keys:
            found = found and found.get(key)
        return found or None

    def beside_expert(self, told: Row | None, task: str, relative: bool = False) -> Beside:
        reference = self._experts[task]["relative" if relative else EXPERT]
        return beside(costs(told), costs(reference)) if told else NONE

    def ratio(self, body: str, demos: int, task: str, part: str = "demos", context: int = 20) -> Beside:
        return self.beside_expert(self.of(self.row(part, body, demos, context), task), task)

    def between(self, body: str, other: str, task: str) -> Beside:
        """Costs of one body's network beside another's, with the most demonstrations."""
        pair = [self.of(self.row("demos", name, self.most), task) for name in (body, other)]
        return beside(costs(pair[0]), costs(pair[1])) if pair[0] and pair[1] else NONE

    def zero_shot(self, body: str, task: str, part: str) -> Beside:
        """part: demos for the task's own embedders, padded for the shared ones."""
        return self.beside_expert(self.of(self.row(part, body, self.most), task, "relative"), task, relative=True)

    def wrong(self, task: str) -> tuple[Row, Row]:
        """Of the experts with wrong models the middle one, and the one whose demonstrations cost least."""
        row = self._experts[task]
        ordered = sorted(row["wrong"], key=lambda each: float(np.mean(each["costs"])))
        return ordered[(len(ordered) - 1) // 2], row["wrong"][int(np.argmin(row["wrong_shown"]))]

    def imitated(self, body: str, part: str, task: str) -> Row | None:
        return self.of(self.row(part, body, KEPT), task)

    def beside_wrong(self, body: str, part: str, task: str, *, best: bool = False) -> Beside:
        """A network's costs beside those of the middle, or of the best, of the experts that it learnt from."""
        told = self.imitated(body, part, task)
        return beside(costs(told), costs(self.wrong(task)[best])) if told else NONE

    def step_p99_ms(self) -> dict[str, float]:
        found = {}
        for body in self.bodies:
            row = self.row("demos", body, self.most)
            if row and "step_ms" in row:
                found[body] = float(np.quantile(row["step_ms"], 0.99))
        return found

    def data(self) -> dict[str, Any]:
        return {"tasks": {task: self._data(task) for task in self.tasks}, "step_p99_ms": self.step_p99_ms()}

    def _data(self, task: str) -> dict[str, Any]:
        told = {body: self.of(self.row("demos", body, self.most), task) for body in self.bodies}
        zero = self.zero_shot("lm_lora", task, "demos")
        if zero is NONE:
            zero = self.zero_shot("lm_lora", task, "padded")
        return {
            "expert": {"name": EXPERT, "cost": float(costs(self.expert(task)[EXPERT]).mean())},
            "cost_ratio": {
                body: {str(demos): self.ratio(body, demos, task).ratio for demos in self.demos} for body in self.bodies
            },
            "cost_ratio_ci95": {
                body: {str(demos): asdict(self.ratio(body, demos, task)) for demos in self.demos}
                for body in self.bodies
            },
            "mismatch_ratio": self.beside_wrong("lm_lora", "wrong", task).ratio,
            "zero_shot_ratio": zero.ratio,
            "violations": {body: each["violations"] for body, each in told.items() if each},
        }


def costs(told: Row | None) -> NDArray[np.float64]:
    assert told is not None
    return np.array(told["costs"])
