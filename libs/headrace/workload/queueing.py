"""What a scenario says of the queue manager: how requests find their workers. As the live mesh does, unless said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.core.stages.routing import Routing
from headrace.workload.tables import CountOrNone


@dataclass(frozen=True, slots=True)
class Queueing:
    """The table [queue]."""

    # Where the parts and the requests that nothing else decides on go: to who has least pending, or regardless of load.
    routing: Routing = "least-pending"
    # One worker encodes a request's parts and prefills it, in one line: as an engine without encoders of its own does.
    together: bool = False
    encoder_window_tokens: CountOrNone = 0  # media tokens that an encoder is sent before others must wait; 0: as live

    def settings(self) -> Mapping[str, Any]:
        """Fields of QueueConfig."""
        window = {"encoder_window_tokens": self.encoder_window_tokens} if self.encoder_window_tokens else {}
        return {"routing": self.routing, "together": self.together, **window}
