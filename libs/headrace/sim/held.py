"""A request at a simulated LLM worker, in the states of a live one, with numbers of tokens in place of tokens."""

from dataclasses import dataclass
from typing import Literal

from headrace.core.commands import HoldState, PrefillCommand
from headrace.core.stages.roster import Place
from headrace.core.types import End, Key, TensorHandle
from headrace.sim.asked import Asked

State = Literal["waiting", "joining", "prefill", "running", "handover", "evicting", "evicted", "resuming", "ended"]

# As headrace.worker lists them: a joining request stands in the prefill worker's hold. Who is being evicted decodes
# until its KV cache is copied; who resumes is evicted until it is in the engine.
LISTED: dict[State, HoldState] = {
    "waiting": "prefill",
    "prefill": "prefill",
    "running": "decode",
    "handover": "handover",
    "evicting": "decode",
    "evicted": "evicted",
    "resuming": "evicted",
    "ended": "ended",
}
# Whose way into the engine is not over.
ENTERING: frozenset[State] = frozenset({"waiting", "joining", "resuming"})


@dataclass(frozen=True, slots=True)
class Counted:
    """A sequence of so many tokens: headrace.core.stages.batch.Input."""

    key: Key
    length: int
    prompt_len: int
    max_tokens: int
    kv_beside: int
    awaits_at: int | None = None  # where the first media part stands that is still on its way
    tokens: tuple[int, ...] = ()

    @property
    def reach(self) -> int:
        return self.length if self.awaits_at is None else self.awaits_at


@dataclass(slots=True, eq=False)
class Held:
    asked: Asked
    command: PrefillCommand
    state: State
    sequence: Counted
    blocks: int
    emitted: int  # output tokens, those of earlier attempts included
    filled: int = 0  # tokens that its KV covers when it enters the engine
    place: Place = "outside"
    line_place: float = 0.0  # among those that wait for prefill here
    began_s: float = 0.0  # when its prefill began
    last_s: float = 0.0  # when its last token went out; 0: none has, of this attempt
    pulled: int = 0  # media parts that are here; of those that the command names
    pulling: bool = False
    kv: TensorHandle | None = None  # waits here, or is to be pulled
    parked_bytes: int = 0  # of host memory, for the KV cache of an evicted one
    end: End | None = None

    @property
    def key(self) -> Key:
        return self.command.key

    @property
    def lacks(self) -> int:
        """Media parts that it has not been told of, while it needs them."""
        if self.state not in ("waiting", "prefill"):
            return 0
        return len(self.asked.parts) - len(self.command.embeddings)

    @property
    def left(self) -> int:
        """Tokens that it will still say."""
        return self.asked.output_tokens - self.emitted
