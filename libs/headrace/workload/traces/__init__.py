"""Public traces in their publishers' own formats, one file each, and our own.

    for arrival in load("AzureLMMInferenceTrace_multimodal.csv.gz", "azure-lmm", {"image_token_share": 0.5}): ...

A format is a frozen dataclass whose fields are its options and whose `read` yields Arrivals in order of time, as they
are read: memory stays small whatever the file's size (servegen holds the distributions of its span).
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from headrace.workload.arrival import Arrival
from headrace.workload.tables import ScenarioError, build
from headrace.workload.traces.azure_llm import AzureLlm
from headrace.workload.traces.azure_lmm import AzureLmm
from headrace.workload.traces.base import Tally, TraceError, TraceWarning
from headrace.workload.traces.burstgpt import BurstGpt
from headrace.workload.traces.headrace import Headrace, save
from headrace.workload.traces.mooncake import Mooncake
from headrace.workload.traces.servegen import ServeGen

__all__ = ["FORMATS", "Reader", "Tally", "TraceError", "TraceWarning", "check_format", "load", "reader", "save"]


class Reader(Protocol):
    def read(self, path: Path, tally: Tally) -> Iterator[Arrival]:
        """Requests in order of time; what was mended or skipped is in `tally` when they end. Raises TraceError."""
        ...


FORMATS: Mapping[str, type[Reader]] = {
    "azure-llm": AzureLlm,
    "azure-lmm": AzureLmm,
    "burstgpt": BurstGpt,
    "headrace": Headrace,
    "mooncake": Mooncake,
    "servegen": ServeGen,
}


def reader(name: str, options: Mapping[str, Any] | None = None) -> Reader:
    """The format's reader with these options. Raises TraceError: no such format or option, or an impossible value."""
    if name not in FORMATS:
        raise TraceError(f"format: there is no {name!r}; allowed: {', '.join(FORMATS)}")
    try:
        return build(FORMATS[name], options or {}, f"trace format {name}")
    except ScenarioError as error:
        raise TraceError(str(error)) from error


def check_format(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Raises TraceError where `reader` would: before any file is there."""
    reader(name, options)


def load(
    path: str | Path, name: str, options: Mapping[str, Any] | None = None, tally: Tally | None = None
) -> Iterator[Arrival]:
    """The requests of a trace in the format of that name, in order of time.

    A wrong format or option raises at once, a bad row when it is reached. Rows that were mended or skipped are counted
    in `tally`; where none is given, a TraceWarning tells them at the end.
    """
    return _told(reader(name, options), Path(path), tally)


def _told(source: Reader, path: Path, tally: Tally | None) -> Iterator[Arrival]:
    own = Tally() if tally is None else tally
    yield from source.read(path, own)
    if tally is None and (own.mended or own.skipped):
        warnings.warn(f"{path.name}: {own}", TraceWarning, stacklevel=2)
