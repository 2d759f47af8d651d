"""One group on every instance, or many groups each on its own: what headrace.core.planning.cost.work_of() says of one
group on one instance, in arrays.

A decision on the request path asks about all instances of a cell, and one after a model change about all groups in
line; one by one that was half of their time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.core.planning.cost import (
    TARDY_TARGETS_MOST,
    TARDY_WEIGHT,
    WIDTH_LEAST_S,
    rate_of,
    site_of,
    stragglers_s,
)
from headrace.core.planning.problem import GroupSpec, InstanceSpec

Floats = NDArray[np.float64]


class Rates(NamedTuple):
    """One model on each instance, or what each of many groups finds; where it cannot be served, any numbers."""

    model: Floats  # its number
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
    number, rows = names.get(model, -1), []
    for instance in instances:
        rate = rate_of(instance, model, names)
        if rate is None:
            rows.append((number, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0))
            continue
        _, token_s, prefill_token_s, step_s, sequence_s, slots = rate
        load_s = site_of(instance, names).load_s[names[model]]
        rows.append((number, 1.0, token_s, prefill_token_s, step_s, sequence_s, slots, load_s))
    numbers, served, *others = np.array(rows, dtype=np.float64).reshape(-1, 8).T
    return Rates(numbers, served > 0.0, *others)


def guest_of(group: GroupSpec, rates: Rates, drain_share: float) -> Guest:
    bound = group.instance if group.pinned else group.only
    sites = np.arange(len(rates.slots))
    served = rates.served if bound < 0 else rates.served & (sites == bound)
    return Guest(_block(_sums(group), rates, sites, drain_share), served)


def columns_of(
    groups: Sequence[GroupSpec], sites: NDArray[np.int64], rates: Mapping[str, Rates], drain_share: float
) -> Floats:
    """Each group at its own instance, which can serve it. rates: of their models, on all instances."""
    models = {model: number for number, model in enumerate(rates)}
    of = np.array([models[group.model] for group in groups])
    found = Rates(*[np.stack(each)[of, sites] for each in zip(*rates.values(), strict=True)])
    assert found.served.all(), "a group stands where its model is not served"
    return _block(np.array([_sums(group) for group in groups]).T, found, sites, drain_share)


def _sums(group: GroupSpec) -> tuple[float, ...]:
    return (
        max(1, group.count),
        max(group.target_s, WIDTH_LEAST_S),
        group.due_s,
        group.due_spread_s,
        group.prompt_tokens,
        group.output_mean,
        group.output_var,
    )


def _block(sums: Any, rates: Rates, sites: NDArray[np.int64], drain_share: float) -> Floats:
    """In columns as the board's. sums: those of _sums(), numbers or arrays as long as `sites`."""
    count, target_s, due_s, due_spread_s, prompt_tokens, output_mean, output_var = sums
    prefill_s = prompt_tokens * rates.prefill_token_s
    service_s = prefill_s + output_mean * rates.token_s
    service_var = output_var * rates.token_s * rates.token_s
    behind = (count - 1) / count
    spread_s = service_s * behind - due_spread_s
    block = np.empty((12, len(sites)))
    rows = (
        service_s,
        service_var,
        0.5 * behind * service_var,
        prefill_s / count + np.maximum(0.0, spread_s) - due_s,
        np.maximum(WIDTH_LEAST_S, np.abs(spread_s)),
        drain_share
        * stragglers_s(
            output_mean / count, rates.step_s, rates.sequence_s, rates.slots, np.minimum(count, rates.slots)
        ),
        count,
        TARDY_WEIGHT * count / target_s,
        TARDY_WEIGHT * count * TARDY_TARGETS_MOST,
        rates.load_s,
        rates.model,
        sites,
    )
    for row, values in zip(block, rows, strict=True):
        row[:] = values
    return block
