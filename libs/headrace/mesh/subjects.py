"""The names on the bus: subjects and streams. No user input ever stands in one.

A subject's variable part is a request id (32 hex digits) or a process id from the command line.
"""

import re

STREAM_REQUESTS = "REQUESTS"
STREAM_RESULTS = "RESULTS"
STREAM_LEADER = "LEADER"
STREAM_BATCHES = "BATCHES"
STREAM_LINES = "BATCH_LINES"

REQUESTS = "hr.v1.requests.*"
RESULTS = "hr.v1.results.*"
LEADER = "hr.v1.leader"
BATCHES = "hr.v1.batches.*"
LINES = "hr.v1.lines.*.*"
EVENTS = "hr.v1.events"
HEARTBEAT = "hr.v1.heartbeat"
TELEMETRY = "hr.v1.telemetry"
CONTROL = "hr.v1.control"
STATUS = "hr.v1.status"
SCALE = "hr.v1.scale"
CAPS = "hr.v1.caps"
EMBEDDERS = "hr.v1.embedders"
CELL_STATUS = "hr.cells.*.status"  # at the doors of many cells

_PROCESS_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def check_process_id(name: str) -> str:
    """A process id (command line --id) becomes part of subjects and file names: lower case, digits, dashes."""
    if not _PROCESS_ID.fullmatch(name):
        raise ValueError(f"process id {name!r}: must be 1 to 63 of a-z, 0-9 and '-', not starting with '-'")
    return name


def cell_status(cell: str) -> str:
    """A cell's status, as the doors' NATS has it from the cell's."""
    return f"hr.cells.{cell}.status"


def request(request_id: str) -> str:
    return "hr.v1.requests." + request_id


def result(request_id: str) -> str:
    return "hr.v1.results." + request_id


def batch(record_id: str) -> str:
    """Of an uploaded file or a batch."""
    return "hr.v1.batches." + record_id


def line(batch_id: str, number: int | str) -> str:
    """number "*": all of the batch."""
    return f"hr.v1.lines.{batch_id}.{number}"


def work(worker: str) -> str:
    return "hr.v1.work." + worker


def peer(worker: str) -> str:
    """From worker to worker: offers and joins, no command of the queue manager's."""
    return "hr.v1.peer." + worker


def tokens(gateway: str) -> str:
    return "hr.v1.tokens." + gateway


def gateway(name: str) -> str:
    return "hr.v1.gateway." + name


def held(name: str) -> str:
    return f"hr.v1.gateway.{name}.held"
