"""Which lines of a batch have an outcome, and what kind: counted from the outcomes themselves."""

from collections.abc import Sequence

from headrace.mesh.follower import Record
from services.gateway.batch_lines import is_output


class Tally:
    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.completed = self.failed = 0

    def take(self, records: Sequence[Record]) -> None:
        """As they are read from the stream."""
        for record in records:
            self.add(int(record.request_id), record.data)

    def add(self, number: int, outcome: bytes) -> None:
        if number in self.seen:
            return
        self.seen.add(number)
        if is_output(outcome):
            self.completed += 1
        else:
            self.failed += 1
