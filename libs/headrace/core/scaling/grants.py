"""Targets within limits: each pool's least and most, and the GPUs that there are.

What drains holds its GPUs until it has left; who grows gets what is free now, the rest at a later sight.
"""

from collections.abc import Sequence
from dataclasses import replace

from headrace.core.scaling.base import PoolSight, Target


def granted(pools: Sequence[PoolSight], targets: Sequence[Target], gpus_max: int) -> tuple[Target, ...]:
    """One target for each pool, in the order of `pools`.

    GPUs held after it, those of draining instances included, are at most `gpus_max`, or as many as before where that
    was more. The pool whose grant is the smallest share of its target comes first.
    """
    wanted = {target.pool: target for target in targets}
    assert wanted.keys() == {pool.name for pool in pools}, "a target for each pool"
    asked = {pool.name: min(max(wanted[pool.name].instances, pool.least), pool.most) for pool in pools}
    given = {pool.name: min(pool.current, asked[pool.name]) for pool in pools}
    free = gpus_max - sum([_held(pool, given[pool.name]) for pool in pools])
    while True:
        short = [pool for pool in pools if given[pool.name] < asked[pool.name] and pool.gpus <= free]
        if not short:
            break
        neediest = min(short, key=lambda pool: given[pool.name] / asked[pool.name])
        given[neediest.name] += 1
        free -= neediest.gpus
    return tuple([_told(wanted[pool.name], asked[pool.name], given[pool.name]) for pool in pools])


def _held(pool: PoolSight, given: int) -> int:
    """GPUs, with so many instances given: what still starts is given up at once, what serves has to drain first."""
    return (max(given, pool.ready) + pool.draining) * pool.gpus


def _told(target: Target, asked: int, given: int) -> Target:
    reason = target.reason
    if asked != target.instances:
        reason += f"; the pool's limits make it {asked}"
    if given != asked:
        reason += f"; {asked - given} more when GPUs are free"
    return replace(target, instances=given, reason=reason)
