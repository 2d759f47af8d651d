"""The picture of a rehearsal: power and its limit, the warmest GPU, the wait for the first token; phases shaded."""

from pathlib import Path
from typing import Any

import numpy as np

from headrace.rehearsal.story import LOOK_S, Phase, Story

INCHES, DPI = (10.0, 8.0), 130
SHADES = {"before": "#ffffff", "during": "#fdecd2", "after": "#e8f3e6"}
NAMES = {"before": "before", "during": "budget cut", "after": "budget restored"}
POWER, LIMIT, WARM, MEDIAN, TAIL = "#1f5fa8", "#c0392b", "#b5541c", "#2d7d46", "#7b4fa3"


class NoMatplotlib(Exception):
    """The package that draws is not installed."""


def save(story: Story, path: Path) -> None:
    """A PNG. Raises NoMatplotlib, OSError."""
    try:
        import matplotlib
    except ImportError as error:
        raise NoMatplotlib("no picture: matplotlib is not installed (pip install 'headrace[load]')") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (power, heat, wait) = pyplot.subplots(
        3, 1, sharex=True, figsize=INCHES, dpi=DPI, height_ratios=(1.3, 0.8, 1.0), layout="constrained"
    )
    figure.suptitle(story.finding().replace("; ", ";\n"), fontsize=12, fontweight="bold")
    _power(power, story)
    _heat(heat, story)
    _wait(wait, story)
    for axes in (power, heat, wait):
        _phases(axes, story)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    wait.set_xlabel("seconds")
    wait.set_xlim(0.0, story.phases[-1].to_s)
    figure.savefig(path)
    pyplot.close(figure)


def _power(axes: Any, story: Story) -> None:
    axes.plot(story.power.at_s, story.power.values / 1e3, color=POWER, linewidth=1.6, label="drawn, mean of 1 s")
    axes.plot(
        story.limit.at_s,
        story.limit.values / 1e3,
        color=LIMIT,
        linewidth=1.6,
        linestyle="--",
        drawstyle="steps-post",
        label="the row's limit",
    )
    most_w = np.fmax.reduce([*story.power.values, *story.limit.values], initial=0.0)
    axes.set_ylim(0.0, 1.35 * float(most_w) / 1e3)
    axes.set_ylabel("row power, kW")
    axes.legend(loc="lower left", ncols=2, frameon=False)
    for phase in story.phases:
        _say(axes, phase, NAMES[phase.name], 0.96, "black", "bold")
        _say(axes, phase, f"mean {phase.power_w / 1e3:.2f} kW", 0.88, POWER)


def _heat(axes: Any, story: Story) -> None:
    axes.plot(story.hottest.at_s, story.hottest.values, color=WARM, linewidth=1.6)
    axes.set_ylabel("warmest GPU, °C")
    low, high = np.nanmin(story.hottest.values), np.nanmax(story.hottest.values)
    axes.set_ylim(low - 2.0, high + 4.0)
    for phase in story.phases:
        _say(axes, phase, f"at most {phase.hottest_c:.0f} °C", 0.95, WARM)


def _wait(axes: Any, story: Story) -> None:
    axes.plot(
        story.ttft_p50.at_s, story.ttft_p50.values, color=MEDIAN, linewidth=1.6, label=f"median of {LOOK_S:.0f} s"
    )
    axes.plot(story.ttft_p95.at_s, story.ttft_p95.values, color=TAIL, linewidth=1.6, label="95th percentile")
    axes.set_ylim(0.0, 1.3 * float(np.nanmax(story.ttft_p95.values)))
    axes.set_ylabel("first token after, s")
    axes.legend(loc="lower left", ncols=2, frameon=False)
    for phase in story.phases:
        p50, p95 = phase.ttft_s
        _say(axes, phase, f"p50 {p50:.2f} s, p95 {p95:.2f} s", 0.95, TAIL)


def _say(axes: Any, phase: Phase, text: str, height: float, colour: str, weight: str = "normal") -> None:
    """In the middle of a phase, at a share of the panel's height."""
    middle_s = (phase.from_s + phase.to_s) / 2.0
    place = axes.get_xaxis_transform()
    axes.text(middle_s, height, text, ha="center", va="top", color=colour, fontweight=weight, transform=place)


def _phases(axes: Any, story: Story) -> None:
    for phase in story.phases:
        axes.axvspan(phase.from_s, phase.to_s, color=SHADES[phase.name], zorder=0, linewidth=0)
