"""Output lengths: what a predictor says changes a request's place in line, and every end teaches."""

from headrace.core.events import LengthPredicted
from headrace.core.lengths import LEVELS, Prediction, of_request
from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.types import End


def length_predicted(cell: Cell, event: LengthPredicted, now_s: float) -> None:
    """Late is as good as never: it changes what still waits. An idle worker has not waited for it."""
    job = cell.jobs.get(event.request_id)
    if job is None or len(event.tokens) != len(LEVELS):
        return
    raw = Prediction.of(event.tokens, job.request.sampling.max_tokens)
    job.length = cell.calibrator.calibrated(job.request.model, raw)
    cell.stand_again(job)


def learn(cell: Cell, job: Job, end: End, output_tokens: int) -> None:
    """Only what ended by itself, or at its limit, says how long such answers are."""
    if not cell.lengths_matter or not output_tokens or end.reason not in ("stop", "length"):
        return
    stopped = end.reason == "stop"
    cell.known_lengths.learn(of_request(job.request), output_tokens, stopped=stopped)
    if job.length is not None:
        cell.calibrator.learn(job.request.model, job.length, output_tokens, stopped=stopped)
