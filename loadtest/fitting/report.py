"""The table of fit errors and the checks against measurements that took no part in the fit, as Markdown."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from statistics import median

from headrace.profiles import gpu
from loadtest.fitting import calibrate, checks
from loadtest.fitting.llms import LlmProfile
from loadtest.fitting.toml_text import PHASES


def markdown(data: Path, engine: calibrate.Engine, profiles: list[LlmProfile]) -> str:
    head = "# The packaged cost profiles: fit and checks\n\nWritten by `python -m loadtest.fitting --report`.\n"
    return "\n".join([head, *_errors(profiles), *_engine(engine), *_checks(data), *_power(data)]) + "\n"


def _errors(profiles: list[LlmProfile]) -> Iterable[str]:
    yield "## What compactness costs\n"
    yield "Relative error of a profile against composed kernel times: median / largest, %. A third of the grid, and for"
    yield "tokens the points between the knots, was held out of the fit.\n"
    yield "| profile | " + " | ".join(f"{phase}, fitted | {phase}, held out" for phase, _ in PHASES) + " |"
    yield "|---|" + "---|---|" * len(PHASES)
    for profile in profiles:
        for part in (part for part in profile.parts if part.errors):
            cells = []
            for phase, _ in PHASES:
                inside, most, outside, worst = (f"{100 * error:.1f}" for error in part.errors[phase])
                cells.append(f"{inside} / {most} | {outside} / {worst}")
            yield f"| {profile.gpu}/{profile.llm.stem}/tp{part.gpus} | {' | '.join(cells)} |"


def _engine(engine: calibrate.Engine) -> Iterable[str]:
    worst = max(abs(error) for error in engine.errors)
    middle = median(abs(error) for error in engine.errors)
    yield "\n## The engine's own time\n"
    yield f"{engine.iteration_s * 1e6:.0f} us an iteration and {engine.sequence_s * 1e6:.1f} us a decoding sequence."
    yield f"{engine.source}. What it was calibrated on is met within {middle:.1%} (median), {worst:.1%} (largest)."


def _checks(data: Path) -> Iterable[str]:
    yield "\n## Beside measurements that took no part\n"
    yield "Our seconds over theirs. Splitwise measured engines of 2023; Vidur's rows are kernels alone, as ours are.\n"
    yield "| measured by | profile | what | points | median | smallest | largest |"
    yield "|---|---|---|---|---|---|---|"
    for by, found in (
        ("Splitwise", checks.splitwise(data)),
        ("Vidur", checks.vidur(data)),
        ("ML.ENERGY", checks.mlenergy(data)),
    ):
        ordered = sorted(found, key=lambda ratio: (ratio.profile, ratio.what))
        for (profile, what), same in groupby(ordered, key=lambda ratio: (ratio.profile, ratio.what)):
            ratios = [ratio.ratio for ratio in same]
            spread = f"{median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f}"
            yield f"| {by} | {profile} | {what} | {len(ratios)} | {spread} |"


def _power(data: Path) -> Iterable[str]:
    card = gpu("h100").power
    yield "\n## Power of decoding H100s\n"
    yield f"Measured by ML.ENERGY; the card has {card.decode_w:.0f} W decoding, {card.prefill_w:.0f} W prefilling.\n"
    yield "| shapes | GPUs | sequences | W a GPU |"
    yield "|---|---|---|---|"
    for point in calibrate.measured(data):
        yield f"| {point.llm} | {point.gpus} | {point.batch:.0f} | {point.power_w:.0f} |"
