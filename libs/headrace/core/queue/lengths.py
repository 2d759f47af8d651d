"""Output lengths: what a predictor says changes a request's place in line, and every end teaches."""

from headrace.core.events import LengthPredicted
from headrace.core.lengths import LEVELS, Prediction, of_request
from headrace.core.queue.cell import Cell
from headrace.core.queue.groups import flow_of
from headrace.core.queue.job import Job
from headrace.core.queue.shares import INPUT_WEIGHT, OUTPUT_WEIGHT
from headrace.core.types import End


def length_predicted(cell: Cell, event: LengthPredicted, now_s: float) -> None:
    """Late is as good as never: it changes what still waits. An idle worker has not waited for it."""
    job = cell.jobs.get(event.request_id)
    if job is None or len(event.tokens) != len(LEVELS):
        return
    raw = Prediction.of(event.tokens, job.request.sampling.max_tokens)
    job.length = cell.calibrator.calibrated(job.request.model, raw)
    job.remaining = None
    cell.stand_again(job)


def learn(cell: Cell, job: Job, end: End, output_tokens: int, now_s: float) -> None:
    """Only what ended by itself, or at its limit, says how long such answers are."""
    _settle_share(cell, job, output_tokens, now_s)
    if not cell.lengths_matter or not output_tokens or end.reason not in ("stop", "length"):
        return
    stopped = end.reason == "stop"
    cell.known_lengths.learn(of_request(job.request), output_tokens, stopped=stopped)
    if job.length is not None:
        cell.calibrator.learn(job.request.model, job.length, output_tokens, stopped=stopped)


def _settle_share(cell: Cell, job: Job, output_tokens: int, now_s: float) -> None:
    """What it was charged for was a guess."""
    if cell.virtual is not None and job.charged:
        owed = INPUT_WEIGHT * len(job.request.prompt.tokens) + OUTPUT_WEIGHT * output_tokens - job.charged
        cell.virtual.shares_of(job.request.slo_class).charge_both(flow_of(job), owed, now_s)
        job.charged = 0.0
