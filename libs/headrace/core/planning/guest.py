"""A new group on every instance at once: what headrace.core.planning.cost.work_of() says of one, in arrays.

A decision on the request path asks about all instances of a cell; one by one that was half of its time on 64 of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.planning.cost import (
    TARDY_TARGETS_MOST,
    TARDY_WEIGHT,
    WIDTH_LEAST_S,
    pace_of,
    site_of,
    stragglers_s,
)
from headrace.core.planning.problem import GroupSpec, InstanceSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rates:
    """One model on each instance; where it cannot be served, any numbers."""

    model: int
    served: NDArray[np.bool_]
    token_s: Floats  # of a full batch
    prefill_token_s: Floats
    step_s: Floats
    sequence_s: Floats
    slots: Floats
    load_s: Floats


@dataclass(frozen=True, slots=True)
class Guest:
    """The group at each instance, in columns as the board's; those of instances that cannot serve it are any."""

    block: Floats
    served: NDArray[np.bool_]


def rates_of(model: str, instances: Sequence[InstanceSpec], names: dict[str, int]) -> Rates:
    rows = []
    for instance in instances:
        found = instance.of(model)
        if found is None:
            rows.append((0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0))
            continue
        pace, slots = pace_of(found), max(1, found.slots)
        token_s = (pace.step_s + slots * pace.sequence_s) / slots
        load_s = site_of(instance, names).load_s[names[model]]
        rows.append((1.0, token_s, pace.prefill_token_s, pace.step_s, pace.sequence_s, slots, load_s))
    served, *numbers = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    return Rates(names.get(model, -1), served > 0.0, *numbers)


def guest_of(group: GroupSpec, rates: Rates, drain_share: float) -> Guest:
    count = max(1, group.count)
    tardy = TARDY_WEIGHT * count / max(group.target_s, WIDTH_LEAST_S)
    prefill_s = group.prompt_tokens * rates.prefill_token_s
    service_s = prefill_s + group.output_mean * rates.token_s
    service_var = group.output_var * rates.token_s * rates.token_s
    behind = (count - 1) / count
    spread_s = service_s * behind - group.due_spread_s
    width = np.minimum(count, rates.slots)
    block = np.empty((12, len(rates.slots)))
    block[:] = [
        service_s,
        service_var,
        0.5 * behind * service_var,
        prefill_s / count + np.maximum(0.0, spread_s) - group.due_s,
        np.maximum(WIDTH_LEAST_S, np.abs(spread_s)),
        drain_share * stragglers_s(group.output_mean / count, rates.step_s, rates.sequence_s, rates.slots, width),
        np.full_like(width, count),
        np.full_like(width, tardy),
        np.full_like(width, TARDY_WEIGHT * count * TARDY_TARGETS_MOST),
        rates.load_s,
        np.full_like(width, rates.model),
        np.arange(len(width)),
    ]
    return Guest(block, _bound(group, rates.served))


def _bound(group: GroupSpec, served: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where it may go: everywhere, or to the one instance to which it is bound."""
    bound = group.instance if group.pinned else group.only
    return served if bound < 0 else served & (np.arange(len(served)) == bound)
