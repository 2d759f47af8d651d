"""Every action with its reason: the latest in memory, each as a line of the process's log, and of a file if set."""

import json
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path

from headrace.core.power.decision import Entry
from headrace.mesh.errors import BadSetup
from headrace.mesh.logs import get_logger
from headrace.v1 import governor_pb2

log = get_logger("governor.audit")

KEPT = 1_000
TOLD = 200  # in one answer, newest last
SAID = 100  # by operators: kept and told apart from the others
COMMANDS = ("budget", "emergency", "clear", "mode")


class Audit:
    def __init__(self, path: Path | None = None) -> None:
        """Raises BadSetup if the file cannot be written."""
        self.actions: Counter[str] = Counter()
        self._kept: deque[governor_pb2.AuditEntry] = deque(maxlen=KEPT)
        self._said: deque[governor_pb2.AuditEntry] = deque(maxlen=SAID)
        try:
            self._file = path.open("a", buffering=1) if path is not None else None
        except OSError as error:
            raise BadSetup(f"HEADRACE_AUDIT_FILE={str(path)!r}: {error.strerror}") from error

    def add(self, entries: Iterable[Entry], at_s: float, who: str = "") -> None:
        for entry in entries:
            self.actions[entry.action] += 1
            made = governor_pb2.AuditEntry(
                at_s=at_s,
                action=entry.action,
                subject=entry.subject,
                reason=entry.reason,
                before=entry.before,
                after=entry.after,
                who=who,
            )
            (self._said if entry.action in COMMANDS else self._kept).append(made)
            facts = {"action": entry.action, "subject": entry.subject, "reason": entry.reason} | (
                {"who": who} if who else {}
            )
            numbers = {"before": round(entry.before, 3), "after": round(entry.after, 3)}
            log.info("audit", **facts, **numbers)
            self._write({"at_s": round(at_s, 3), **facts, **numbers})

    def _write(self, line: dict[str, object]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:  # a full disk is no reason to stop keeping limits
            log.error("audit_file_lost", why=str(error))
            self._file = None

    def latest(self) -> list[governor_pb2.AuditEntry]:
        """What operators have said is not crowded out by what followed from it."""
        return sorted([*self._said, *list(self._kept)[-TOLD:]], key=lambda entry: entry.at_s)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
