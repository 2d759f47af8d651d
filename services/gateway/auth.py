"""What a caller's API key allows at this gateway: asking at all, and for which class."""

from headrace.core.access import ASKING, Key
from headrace.core.errors import PermissionDenied
from headrace.core.slo import Classes
from headrace.mesh.keyring import Keys

__all__ = ["Keys", "asking", "check_class"]


def asking(keys: Keys, authorization: str) -> Key:
    """Raises Unauthenticated; PermissionDenied for a key that only operates or reads metrics."""
    return keys.require(authorization, *ASKING)


def check_class(key: Key, slo_class: str, classes: Classes) -> None:
    """Raises PermissionDenied: a batch key asks for what need not be answered at once."""
    if "generate" not in key.scopes and slo_class == classes.default:
        raise PermissionDenied(
            f"this key has the scope batch alone: name another SLO class than {slo_class}", field="slo_class"
        )
