"""Records every event and its effects as a tape, to be replayed against the core elsewhere. Off unless HEADRACE_TAPE
names a file: then every event costs a line, so it is for debugging and for the parity test.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from headrace.core.effects import Effect
from headrace.core.events import Event
from headrace.core.queue import QueueConfig
from headrace.core.tape import frame_line, header_line


class Recorder:
    def __init__(self, path: str, config: QueueConfig) -> None:
        """An empty path records nothing. Lines are written through: a killed process leaves a readable tape."""
        self._file: TextIO | None = Path(path).open("w", buffering=1) if path else None  # noqa: SIM115 for life
        if self._file is not None:
            self._file.write(header_line(config) + "\n")

    def record(self, now_s: float, event: Event, effects: Sequence[Effect]) -> None:
        if self._file is not None:
            self._file.write(frame_line(now_s, event, effects) + "\n")
