"""The two days before a TAPAS week, in which the governor's models learn what each server and GPU is like."""

import numpy as np

from headrace.control import sensing
from headrace.control.constants import SensorKind
from headrace.control.plant import Plant, Seen, Weather
from headrace.core.power.models import Models, Sample, WorstCase
from loadtest.reproduce.tapas_load import SERVER_FULL_W, Case

LEARN_DAYS, LEARN_S = 2, 300.0


def learn(case: Case, plant: Plant) -> Models:
    """Two days before the week: the models see loads as they come and go anywhere, by the plant's own sensors."""
    rng = np.random.default_rng([case.seed, 17])
    kind, server, servers = case.kind, case.server, case.layout.servers
    worst = WorstCase(45.0, 95.0, server.airflow_m3s, SERVER_FULL_W)
    models = Models(servers, server.gpus, worst)
    for step in range(int(LEARN_DAYS * 86_400 / LEARN_S)):
        weather = Weather(24.0 + 9.0 * np.sin(2 * np.pi * step / 288), 0.5 + 0.3 * np.sin(step / 19))
        base = rng.uniform(kind.context_w, kind.prefill_w, (servers, 1))
        watts = np.clip(base * rng.uniform(0.9, 1.1, (servers, server.gpus)), kind.context_w, kind.prefill_w)
        models.learn(sample(plant.step(watts, weather, LEARN_S), weather, rng))
        if step % 72 == 71:
            models.solve()
    return models


def sample(seen: Seen, weather: Weather, rng: np.random.Generator) -> Sample:
    """What telemetry has of a step: all of it with noise."""
    kind, count = SensorKind(), len(seen.inlet_c)
    return Sample(
        weather.outside_c,
        weather.load,
        seen.inlet_c + rng.normal(0.0, 0.2, count),
        seen.airflow_m3s * (1.0 + rng.normal(0.0, 0.02, count)),
        seen.server_w * (1.0 + rng.normal(0.0, 0.01, count)),
        sensing.power(kind, seen.gpu_w, rng),
        sensing.temperature(kind, seen.die_c, rng) + 0.5 * kind.temp_step_c,  # rounded down
        np.ones(count, dtype=bool),
    )
