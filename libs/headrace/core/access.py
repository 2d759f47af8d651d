"""Who may do what, and how much of it: the record of an API key, its scopes and its limits.

A key itself is never kept: its SHA-256 is, which suffices for 32 random bytes.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

# generate: requests of any class; batch: of every class but the default one; operate: queue manager, governor and
# workers' state; metrics: the gateway's /metrics.
Scope = Literal["generate", "batch", "operate", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ASKING: frozenset[Scope] = frozenset(("generate", "batch"))
OPEN_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Limits:
    """0: none. Tokens are those of prompt and answer together."""

    requests_per_min: int = 0
    tokens_per_min: int = 0
    concurrent: int = 0
    tokens_per_day: int = 0  # a day of UTC

    def __bool__(self) -> bool:
        return bool(self.requests_per_min or self.tokens_per_min or self.concurrent or self.tokens_per_day)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Key:
    """One API key as the file has it; expiry and revocation in seconds of the epoch."""

    id: str
    hash: bytes
    tenant: str
    scopes: frozenset[Scope]
    limits: Limits = NO_LIMITS
    soonest_s: float = 0.0  # no first token is wanted sooner, whatever targets and priority say; 0: as they say
    expires_s: float = math.inf
    revoked_s: float = math.inf
    old_hash: bytes = b""  # of the key that this one replaced, good until old_until_s
    old_until_s: float = 0.0

    def ends_s(self) -> float:
        return min(self.expires_s, self.revoked_s)


ANYBODY = Key("", b"", OPEN_TENANT, frozenset(SCOPES))
