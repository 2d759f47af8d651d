"""ServeGen (alibaba/ServeGen, NSDI '26): a folder of chunk-N-trace.csv and chunk-N-dataset.json, one pair per client.

Not recorded requests but fitted ones: windows of rate, cv and law for arrivals, distributions for lengths and media.
"""

import ast
import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from headrace.workload.arrival import Arrival, Part
from headrace.workload.processes import CV_MAX, CV_MIN, ExponentialGaps, GammaGaps, Gaps, Modulated, WeibullGaps
from headrace.workload.rates import Floats, constant
from headrace.workload.tables import Bound, NotNegative, Positive
from headrace.workload.traces.base import BadRow, Place, Tally, TraceError, number, opened

MEDIA = ("image", "audio", "video")
LAWS: dict[str, type[GammaGaps | WeibullGaps]] = {"Gamma": GammaGaps, "Weibull": WeibullGaps}
# The tokens come from Qwen-VL models: 28 x 28 pixels each (Qwen2-VL, arXiv 2409.12191, sec. 2.1). The shape is not in
# the data; a square has the right number of tokens. Sound: 25 tokens a second (Qwen2-Audio, arXiv 2407.10759, sec. 2).
PIXELS_PER_TOKEN_SIDE = 28
AUDIO_TOKENS_PER_S = 25


@dataclass(frozen=True, slots=True)
class Window:
    client: int
    rate_rps: float
    gaps: Gaps


@dataclass(frozen=True, slots=True)
class Marginal:
    """A discrete distribution: values and the upper ends of their shares."""

    values: NDArray[np.int64]
    edges: Floats

    def draw(self, rng: Generator, n: int) -> NDArray[np.int64]:
        return self.values[np.searchsorted(self.edges, rng.random(n), side="right")]


Fields = dict[str, Marginal]
Periods = list[tuple[float, Fields]]  # in order of time; each holds until the next


@dataclass(frozen=True, slots=True)
class ServeGen:
    """Arrivals of the clients' windows within [start_s, start_s + duration_s) (0: to the end), times begun anew.

    `rate_rps` scales all clients alike, so that the expected mean over the span is so much (0: the published rates,
    which are a provider's). Each window of a client is a renewal process of the given rate, cv and law, begun in
    equilibrium. Fields of one request are drawn independently, as they are published. The client becomes the tenant. A
    prompt of 0 text tokens and an empty answer become 1 token, and are told, as are a cv that no law has (Poisson) and
    clients without one of their two files. Distributions of the span are held in memory: 16 bytes an entry.
    """

    seed: Annotated[int, Bound(least=0)] = 1
    rate_rps: NotNegative = 0.0
    start_s: NotNegative = 0.0
    duration_s: NotNegative = 0.0
    window_s: Positive = 600.0
    skip_bad: bool = False

    def read(self, path: Path, tally: Tally) -> Iterator[Arrival]:
        end_s = self.start_s + self.duration_s if self.duration_s else math.inf
        windows: dict[float, list[Window]] = defaultdict(list)
        clients: dict[int, Periods] = {}
        for client, trace, dataset in _pairs(path, tally):
            clients[client] = _periods(dataset, self.start_s, end_s)
            for at_s, window in _windows(Place(trace, tally, self.skip_bad), client, self.window_s):
                if at_s + self.window_s > self.start_s and at_s < end_s:
                    windows[at_s].append(window)
        if not windows:
            raise TraceError(f"{path.name}: no client has traffic between {self.start_s:g} s and {end_s:g} s")
        factor = self._factor(windows, end_s)
        yield from self._requests(windows, clients, factor, end_s, tally)

    def _factor(self, windows: dict[float, list[Window]], end_s: float) -> float:
        if not self.rate_rps:
            return 1.0
        until_s = min(end_s, max(windows) + self.window_s)
        expected = sum(
            each.rate_rps * (min(at_s + self.window_s, until_s) - max(at_s, self.start_s))
            for at_s, group in windows.items()
            for each in group
        )
        return self.rate_rps * (until_s - self.start_s) / expected

    def _requests(
        self,
        windows: dict[float, list[Window]],
        clients: dict[int, Periods],
        factor: float,
        end_s: float,
        tally: Tally,
    ) -> Iterator[Arrival]:
        rng = np.random.default_rng(self.seed)
        for at_s in sorted(windows):
            batch: list[Arrival] = []
            for each in windows[at_s]:
                process = Modulated(constant(each.rate_rps * factor), each.gaps)
                for block in process.blocks(rng, self.window_s):
                    times = block + at_s
                    times = times[(times >= self.start_s) & (times < end_s)]
                    batch += _filled(times, self.start_s, each.client, _now(clients[each.client], at_s), rng, tally)
            batch.sort(key=lambda arrival: arrival.at_s)
            yield from batch


def _pairs(folder: Path, tally: Tally) -> Iterator[tuple[int, Path, Path]]:
    found: dict[int, dict[str, Path]] = defaultdict(dict)
    for path in folder.glob("chunk-*") if folder.is_dir() else ():
        if match := re.fullmatch(r"chunk-(\d+)-(trace\.csv|dataset\.json)(?:\.gz)?", path.name):
            found[int(match[1])][match[2]] = path
    if not found:
        raise TraceError(f"{folder.name}: must be a folder with chunk-N-trace.csv and chunk-N-dataset.json")
    for client, files in sorted(found.items()):
        if len(files) == 2:
            yield client, files["trace.csv"], files["dataset.json"]
        else:
            tally.skipped[f"client with {next(iter(files))} alone"] += 1


def _windows(place: Place, client: int, window_s: float) -> Iterator[tuple[float, Window]]:
    """Rows are at_s, rate, cv, law, shape, scale, without a header; idle windows have rate 0 and no law."""
    with opened(place.path) as text:
        for place.row, cells in enumerate(csv.reader(text), 1):
            place.tally.rows += 1
            try:
                at_s, rate_rps = number(cells[0], "1 (time)"), number(cells[1], "2 (rate)")
                if rate_rps > 0:
                    yield at_s, Window(client, rate_rps, _gaps(cells, place.tally))
            except (BadRow, IndexError) as bad:
                reason = bad if isinstance(bad, BadRow) else BadRow("3 (cv)", "is missing")
                if not place.skip_bad:
                    raise place.error(f"{reason}; skip_bad leaves such rows out") from bad
                place.tally.skipped[reason.short] += 1


def _gaps(cells: list[str], tally: Tally) -> Gaps:
    cv, law = number(cells[2], "3 (cv)"), cells[3]
    if law not in LAWS:
        raise BadRow("4 (law)", f"must be one of {', '.join(LAWS)}", law)
    if CV_MIN <= cv <= CV_MAX:
        return LAWS[law](cv)
    tally.mended["cv out of bounds, taken as Poisson"] += 1
    return ExponentialGaps()


def _periods(path: Path, start_s: float, end_s: float) -> Periods:
    try:
        with opened(path) as text:
            raw = json.load(text)
        times = sorted(float(at) for at in raw)
        inside = [at for at, until in zip(times, [*times[1:], math.inf], strict=True) if at < end_s and until > start_s]
        by_time = {float(at): entry for at, entry in raw.items()}
        periods = [(at, {name: _marginal(entry) for name, entry in by_time[at].items()}) for at in inside]
    except (ValueError, SyntaxError, AttributeError, TypeError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path.name}: must be {{time: {{field: distribution}}}}: {error}") from error
    fields = periods[0][1] if periods else {}
    if not {"text_tokens", "input_tokens"} & set(fields) or "output_tokens" not in fields:
        raise TraceError(f"{path.name}: needs text_tokens or input_tokens, and output_tokens; has {', '.join(fields)}")
    return periods


def _marginal(written: Any) -> Marginal:
    """Written as the text of a dict, {value: share}; shares are brought to a sum of 1."""
    shares = ast.literal_eval(written) if isinstance(written, str) else {int(k): v for k, v in written.items()}
    values = np.array(list(shares), dtype=np.int64)
    weights = np.array(list(shares.values()), dtype=np.float64)
    if not len(values) or weights.sum() <= 0 or values.min() < 0:
        raise ValueError(f"a distribution of counts, not {str(written)[:40]!r}")
    edges = np.cumsum(weights / weights.sum())
    edges[-1] = 1.0
    return Marginal(values, edges)


def _now(periods: Periods, at_s: float) -> Fields:
    return next((fields for since, fields in reversed(periods) if since <= at_s), periods[0][1])


def _filled(
    times: Floats, start_s: float, client: int, fields: Fields, rng: Generator, tally: Tally
) -> Iterator[Arrival]:
    n = len(times)
    text = fields.get("text_tokens", fields.get("input_tokens"))
    assert text is not None, "checked when the file was read"
    prompts, answers = text.draw(rng, n), fields["output_tokens"].draw(rng, n)
    for name, counts in (("0 text tokens, taken as 1", prompts), ("0 output tokens, taken as 1", answers)):
        if empty := int((counts < 1).sum()):
            tally.mended[name] += empty
    parts = _parts(n, fields, rng)
    tenant = f"client-{client}"
    prompts, answers = np.maximum(prompts, 1), np.maximum(answers, 1)
    rows = zip((times - start_s).tolist(), prompts.tolist(), answers.tolist(), parts, strict=True)
    return (Arrival(at_s, prompt, output, media, tenant=tenant) for at_s, prompt, output, media in rows)


def _parts(n: int, fields: Fields, rng: Generator) -> list[tuple[Part, ...]]:
    parts: list[tuple[Part, ...]] = [()] * n
    for modality in MEDIA:
        if f"{modality}_count" not in fields or f"{modality}_tokens" not in fields:
            continue
        counts = fields[f"{modality}_count"].draw(rng, n)
        if not counts.any():
            continue
        tokens = iter(np.maximum(fields[f"{modality}_tokens"].draw(rng, int(counts.sum())), 1).tolist())
        for i, count in enumerate(counts.tolist()):
            parts[i] += tuple(_part(modality, next(tokens)) for _ in range(count))
    return parts


def _part(modality: str, tokens: int) -> Part:
    if modality == "audio":
        return Part(modality, duration_s=tokens / AUDIO_TOKENS_PER_S, tokens=tokens)
    side = round(PIXELS_PER_TOKEN_SIDE * math.sqrt(tokens))
    return Part(modality, side, side, tokens=tokens)
