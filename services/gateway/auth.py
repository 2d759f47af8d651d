"""What a caller's API key allows at this gateway: asking at all, and for which class."""

from dataclasses import replace

from headrace.core.access import ASKING, Key
from headrace.core.errors import PermissionDenied
from headrace.core.slo import Classes, effective_target_s
from headrace.mesh.keyring import Keys
from services.gateway.targets import Targets

__all__ = ["Keys", "asking", "check_at_once", "check_class", "patient"]


def asking(keys: Keys, authorization: str) -> Key:
    """Raises Unauthenticated; PermissionDenied for a key that only operates or reads metrics."""
    return keys.require(authorization, *ASKING)


def patient(key: Key, targets: Targets, class_ttft_s: float) -> Targets:
    """What a request may ask for itself: nobody hurries past others further than the key allows."""
    wanted_s = effective_target_s(targets.ttft_s or class_ttft_s, targets.priority)
    if wanted_s >= min(key.soonest_s, class_ttft_s):
        return targets
    return replace(targets, ttft_s=min(key.soonest_s, class_ttft_s), priority=0)


def check_class(key: Key, slo_class: str, classes: Classes) -> None:
    """Raises PermissionDenied: a batch key asks for what need not be answered at once."""
    if "generate" not in key.scopes and slo_class == classes.default:
        raise PermissionDenied(
            f"this key has the scope batch alone: name another SLO class than {slo_class}", field="slo_class"
        )


def check_at_once(key: Key) -> None:
    """For what is in no class, since it does not wait. Raises PermissionDenied: the key may ask for batches alone."""
    if "generate" not in key.scopes:
        raise PermissionDenied("this key has the scope batch alone: make a batch of it (POST /v1/batches)")
