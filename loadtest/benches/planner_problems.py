"""Random planning problems: groups of several classes and models on instances of several kinds."""

import numpy as np

from headrace.core.instance import Pace
from headrace.core.planning.problem import GroupSpec, InstanceModel, InstanceSpec, Problem

CLASSES = ((20.0, 0.45), (60.0, 0.35), (3_600.0, 0.2))  # target in seconds, share of groups


def random_problem(
    seed: int,
    groups: int,
    instances: int,
    models: int = 3,
    *,
    load: float = 1.0,
    requests: tuple[float, float] = (4, 64),
    placed: bool = False,
) -> Problem:
    """`load`: work for each instance, as a multiple of about 60 s. `requests`: least and most in a group. `placed`: the
    groups stand in queues already."""
    rng = np.random.default_rng(seed)
    names = [f"m{number}" for number in range(models)]
    sites = tuple(_instance(rng, number, names) for number in range(instances))
    names = [name for name in names if any(site.of(name) is not None for site in sites)]
    scale = load * 60.0 * instances / groups  # seconds of service for each group, about
    found = []
    for number in range(groups):
        target_s = float(rng.choice([c[0] for c in CLASSES], p=[c[1] for c in CLASSES]))
        count = int(np.exp(rng.uniform(*np.log(requests))))
        output = float(rng.uniform(0.5, 1.5)) * scale * 1_500 / count
        found.append(
            GroupSpec(
                id=1_000 + number,
                model=names[int(rng.integers(len(names)))],
                count=count,
                due_s=target_s - float(rng.uniform(0, min(target_s, 60.0))),
                target_s=target_s,
                prompt_tokens=float(rng.uniform(50, 1_500)) * count,
                output_mean=output * count,
                output_var=count * output**2,
                instance=int(rng.integers(instances)) if placed else -1,
                position=number if placed else -1,
                due_spread_s=float(rng.uniform(0, 5)),
            )
        )
    return Problem(1, tuple(found), sites)


def _instance(rng: np.random.Generator, number: int, names: list[str]) -> InstanceSpec:
    speed = float(rng.choice([1.0, 1.0, 2.0]))
    served = tuple(
        InstanceModel(
            name,
            load_s=float(rng.choice([1.0, 8.0, 20.0])),
            slots=int(rng.choice([16, 32, 64])),
            pace=Pace(0.02 / speed, 2e-4 / speed, 5e-5 / speed),
        )
        for name in names
        if rng.random() < 0.85 or name in (names[number % len(names)], names[-1 - number % len(names)])
    )
    ready_s = float(rng.uniform(0, 3))
    idle_s = ready_s + float(rng.uniform(0, 4))
    return InstanceSpec(f"llm-{number}", names[number % len(names)], served, ready_s, ready_s / 4, idle_s)
