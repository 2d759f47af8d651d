"""Whose first token is still to come, and until when it is in time: what an autoscaler's attainment is made of."""

from headrace.core.scaling.events import Answered


class Promises:
    """Bounded by the requests that live: each is settled by its first token, its time, or its end."""

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}  # by request id

    def __len__(self) -> int:
        return len(self._due_s)

    def accepted(self, request_id: str, due_s: float) -> None:
        self._due_s[request_id] = due_s

    def first_token(self, request_id: str, now_s: float) -> list[Answered]:
        """Said again, or of a request that is not known: nothing."""
        due_s = self._due_s.pop(request_id, None)
        return [Answered(now_s <= due_s)] if due_s is not None else []

    def gone(self, request_id: str) -> None:
        """It ended without a token by nobody's fault: cancelled."""
        self._due_s.pop(request_id, None)

    def overdue(self, now_s: float) -> list[Answered]:
        """Those whose time is over since the last call."""
        late = [request_id for request_id, due_s in self._due_s.items() if due_s < now_s]
        for request_id in late:
            del self._due_s[request_id]
        return [Answered(False) for _ in late]
