"""How a process lives: uvloop, one ready line, drain on SIGTERM, out on the second signal.

A bug in a callback ends the process: its supervisor starts a clean one, and the mesh is built for that.
"""

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from headrace.core.errors import HeadraceError
from headrace.mesh import telemetry
from headrace.mesh.errors import BadSetup
from headrace.mesh.logs import get_logger

log = get_logger("lifecycle")

EXIT_BAD_SETUP = 78  # EX_CONFIG: a supervisor need not try again at once
EXIT_FORCED = 130
DRAIN_WAIT_S = 30.0  # then the process leaves whatever it still holds to its lease


class Lifecycle:
    def __init__(self) -> None:
        self.stopping = asyncio.Event()  # drain: take nothing new, finish or hand back, then return from main
        self._failed: BaseException | None = None
        self._main: asyncio.Task[Any] | None = None

    def ready(self, process: str, **facts: Any) -> None:
        """One JSON line on stdout, and the same in HEADRACE_READY_FILE if that is set (made by rename)."""
        line = json.dumps({"event": "ready", "process": process, "pid": os.getpid(), **facts})
        if path := os.environ.get("HEADRACE_READY_FILE"):
            with open(path + ".part", "w") as file:
                file.write(line + "\n")
            os.replace(path + ".part", path)
        print(line, flush=True)

    def stop(self) -> None:
        """As SIGTERM does: the first asks for a drain, the second leaves at once."""
        if self.stopping.is_set():
            sys.stderr.flush()
            os._exit(EXIT_FORCED)
        self.stopping.set()
        asyncio.get_running_loop().call_later(DRAIN_WAIT_S, self._end_main)

    def fail(self, error: BaseException) -> None:
        """The process cannot go on (lost leadership, a bug): main is cancelled and the exit status is 1."""
        self._failed = self._failed or error
        self._end_main()

    def _end_main(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        what = str(context.get("message", ""))
        if error is None:
            log.error("loop_error", what=what)
            return
        log.failure("loop_error", error, what=what)
        if "callback" in what.lower():
            self.fail(error)

    async def _run(self, main: Callable[["Lifecycle"], Awaitable[None]]) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self._main = asyncio.ensure_future(main(self))
        with contextlib.suppress(asyncio.CancelledError):
            await self._main
        if self._failed is not None:
            log.failure("process_failed", self._failed)
        return 1 if self._failed is not None else 0


def collect_less() -> None:
    """Call once everything is loaded. What is loaded stays, and requests make no cycles: young objects are looked
    through less often (5 % of a request), and ten thousand waiting requests, a million objects, hardly ever.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run(main: Callable[[Lifecycle], Awaitable[None]]) -> None:
    """Runs main on uvloop and ends the process: 0 after a drain, 1 after a failure, 78 for a bad set-up."""

    async def start() -> int:
        return await Lifecycle()._run(main)

    try:
        status = uvloop.run(start())
    except (BadSetup, HeadraceError) as error:
        print(f"headrace: {error}", file=sys.stderr, flush=True)
        status = EXIT_BAD_SETUP if isinstance(error, BadSetup) else 1
    telemetry.shut_down()
    sys.exit(status)
