"""What HEADRACE_AUTOSCALE and its kin say: the policy, the pools with their limits, and who carries it out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from headrace.core.scaling import SCALERS
from headrace.core.types import StageName
from headrace.mesh.errors import BadSetup

OFF = "off"
WAYS = ("supervisor", "kubernetes")
STAGES: tuple[StageName, ...] = get_args(StageName)
# encode:0-4 or prefill+decode:1-2:900, the last being tokens a second of one instance; a deployment behind @
_POOL = re.compile(r"([a-z+]+):(\d+)-(\d+)(?::([\d.]+))?(?:@([a-z0-9][a-z0-9.-]*))?")


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """A pool is all workers with the same stages; its name is theirs, joined by +."""

    name: str
    stages: tuple[StageName, ...]
    least: int
    most: int
    capacity_per_s: float = 0.0  # 0: as its workers' pace says
    deployment: str = ""  # on Kubernetes; empty: see deployment_name

    @property
    def deployment_name(self) -> str:
        return self.deployment or f"headrace-{'encoder' if self.stages == ('encode',) else '-'.join(self.stages)}"


@dataclass(frozen=True, slots=True)
class ScalingOptions:
    policy: str  # off, headrace or published
    # stages:least-most, as in `encode:0-4 prefill+decode:1-2:900@name`: tokens a second of one instance and the
    # Deployment's name may be left out
    pools: tuple[PoolOptions, ...]
    way: str = "supervisor"  # or kubernetes: who carries orders out
    look_s: float = 5.0  # from look to look [I] as in the simulator
    epoch_s: float = 300.0  # the longest window, ModServe's
    start_s: float = 30.0  # [I] that a start takes, until one has been measured
    most: int = 0  # instances of all pools; 0: the sum of their own limits

    @property
    def instances_max(self) -> int:
        return self.most or sum(pool.most for pool in self.pools)

    @staticmethod
    def from_env(env: Mapping[str, str]) -> "ScalingOptions | None":
        """None: nothing is scaled. Raises BadSetup: naming the variable and what it may be."""
        policy = env.get("HEADRACE_AUTOSCALE", "").strip()
        if policy in ("", OFF):
            return None
        if policy not in SCALERS:
            raise BadSetup(f"HEADRACE_AUTOSCALE={policy!r}: must be {OFF} or one of {', '.join(SCALERS)}")
        way = env.get("HEADRACE_AUTOSCALE_VIA", "").strip() or WAYS[0]
        if way not in WAYS:
            raise BadSetup(f"HEADRACE_AUTOSCALE_VIA={way!r}: must be one of {', '.join(WAYS)}")
        found = ScalingOptions(
            policy,
            _pools(env.get("HEADRACE_AUTOSCALE_POOLS", "")),
            way,
            look_s=_number(env, "HEADRACE_AUTOSCALE_LOOK_S", 5.0),
            epoch_s=_number(env, "HEADRACE_AUTOSCALE_EPOCH_S", 300.0),
            start_s=_number(env, "HEADRACE_AUTOSCALE_START_S", 30.0),
            most=int(_number(env, "HEADRACE_AUTOSCALE_INSTANCES", 0.0, least=0.0)),
        )
        least = sum(pool.least for pool in found.pools)
        if least > found.instances_max:
            raise BadSetup(f"HEADRACE_AUTOSCALE_INSTANCES={found.most}: the pools' least take {least}")
        return found


def _pools(text: str) -> tuple[PoolOptions, ...]:
    pools = tuple(_pool(word) for word in text.replace(",", " ").split())
    if not pools:
        raise BadSetup("HEADRACE_AUTOSCALE_POOLS: names no pool; write stages:least-most, as in encode:0-4 decode:1-2")
    if len({pool.name for pool in pools}) < len(pools):
        raise BadSetup(f"HEADRACE_AUTOSCALE_POOLS={text!r}: names a pool twice")
    return pools


def _pool(word: str) -> PoolOptions:
    found = _POOL.fullmatch(word)
    if found is None:
        raise BadSetup(f"HEADRACE_AUTOSCALE_POOLS: {word!r} is not stages:least-most, such as prefill+decode:1-4")
    stages = found[1].split("+")
    if unknown := sorted(set(stages) - set(STAGES)):
        raise BadSetup(f"HEADRACE_AUTOSCALE_POOLS: {word!r}: no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    least, most = int(found[2]), int(found[3])
    if least > most or not most:
        raise BadSetup(f"HEADRACE_AUTOSCALE_POOLS: {word!r}: the least is above the most, or that is 0")
    if not least and stages != ["encode"]:
        raise BadSetup(f"HEADRACE_AUTOSCALE_POOLS: {word!r}: only encoders may go to zero")
    ordered = tuple(stage for stage in STAGES if stage in stages)
    return PoolOptions("+".join(ordered), ordered, least, most, float(found[4] or 0.0), found[5] or "")


def _number(env: Mapping[str, str], variable: str, usual: float, least: float = 0.05) -> float:
    text = env.get(variable, "").strip()
    try:
        value = float(text) if text else usual
    except ValueError:
        raise BadSetup(f"{variable}={text!r}: must be a number") from None
    if not least <= value <= 1e6:
        raise BadSetup(f"{variable}={text!r}: must be between {least:g} and 1000000")
    return value
