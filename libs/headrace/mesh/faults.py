"""Fault injection at named transitions: HEADRACE_FAULT="<transition>:<n>:<kill|stop>".

At the n-th crossing the process says so in one JSON line on stderr and kills or stops itself. Not armed,
reach() is one comparison.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

TRANSITIONS = frozenset(
    {
        *(f"gateway.{name}" for name in ("validated", "blobs_stored", "journaled", "first_token", "ended")),
        *(
            f"queue.{name}"
            for name in ("read", "encode_sent", "prefill_sent", "parts_sent", "prefilled", "joined", "ended")
        ),
        *(f"queue.{name}" for name in ("result_stored", "record_deleted")),
        *(f"queue.{name}" for name in ("evict_sent", "evicted", "resume_sent", "move_sent", "load_sent")),
        *(f"encode.{name}" for name in ("received", "encoded", "published")),
        *(f"prefill.{name}" for name in ("received", "fetched", "fed", "offered", "first_token")),
        *(f"prefill.{name}" for name in ("kv_registered", "handed_over")),
        *(f"decode.{name}" for name in ("offer_received", "received", "kv_fetched", "joined", "token", "ended")),
        *(f"decode.{name}" for name in ("evicting", "evicted", "resuming", "resumed", "moved", "released")),
        *(f"worker.{name}" for name in ("loading", "loaded")),
    }
)
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(slots=True)
class _Fault:
    transition: str
    left: int  # crossings to go
    action: str


def parse(spec: str) -> _Fault:
    """Raises ValueError with what is wrong; an unknown transition is refused, since it would never fire."""
    parts = spec.split(":")
    if len(parts) != 3:
        raise ValueError(f"HEADRACE_FAULT={spec!r}: want <transition>:<n>:<kill|stop>")
    transition, count, action = parts
    if transition not in TRANSITIONS:
        raise ValueError(f"HEADRACE_FAULT={spec!r}: no such transition; known: {', '.join(sorted(TRANSITIONS))}")
    if not count.isdigit() or int(count) < 1:
        raise ValueError(f"HEADRACE_FAULT={spec!r}: the count must be 1 or more")
    if action not in _SIGNALS:
        raise ValueError(f"HEADRACE_FAULT={spec!r}: the action must be kill or stop")
    return _Fault(transition, int(count), action)


_armed: _Fault | None = None


def arm(env: Mapping[str, str]) -> None:
    """Reads HEADRACE_FAULT; called once when the process starts."""
    global _armed
    spec = env.get("HEADRACE_FAULT", "")
    _armed = parse(spec) if spec else None


def reach(transition: str, request_id: str = "") -> None:
    """The process crosses a named transition."""
    if _armed is not None and _armed.transition == transition:
        _cross(_armed, request_id)


def _cross(fault: _Fault, request_id: str) -> None:
    fault.left -= 1
    if fault.left:
        return
    line = {"event": "fault", "transition": fault.transition, "request_id": request_id, "action": fault.action}
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()
    os.kill(os.getpid(), _SIGNALS[fault.action])


arm(os.environ)
