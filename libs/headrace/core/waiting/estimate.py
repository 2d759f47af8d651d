"""The waiting-time estimator: when a request's first token comes, and its last (QLM, arXiv 2407.00047, equations 1-5).

The paper divides the work ahead by the throughput. Here the work that already runs is counted too, less what the
other slots still hold when the request starts (renewal theory); and whoever needs only some of the running requests to
end waits for those that end first (order statistics).
"""

import math
from dataclasses import dataclass

from headrace.core.instance import Pace
from headrace.core.waiting.work import NOTHING, Work

# What does not average out over many requests: a pace that drifts, lengths that are all wrong together. One standard
# deviation, as a share of the wait [I].
DOUBT = 0.05
MISFIT = 0.1  # as a share of a usual output: lengths are not distributed as the estimate takes them for [M]
# Spreads (standard deviation over mean) for which a Weibull is fitted; its shape is spread^-1.086 within 1 % between
# 0.1 and 1 (Justus et al., J. Applied Meteorology 1978).
_SPREAD_LEAST, _SPREAD_MOST = 0.05, 3.0
_SHAPE_POWER = -1.086
_NEARLY_ALL = 0.98  # of those that run: beyond, it is newcomers whose end is waited for
_SOON = 3.0  # times as many as run have to end: beyond, how those that run are distributed does not matter


@dataclass(frozen=True, slots=True)
class Instance:
    """What serves a line: an LLM instance, or several alike that share it."""

    slots: float  # requests of usual size at once, as far as KV room goes, all engines together
    pace: Pace
    engines: int = 1  # each has its share of the slots
    apart: bool = False  # prompts are prefilled by other workers, and decoding is not slowed by them
    gap_s: float = 0.0  # from a request's end to the next one's entering the engine; 0: the engine holds it already

    @property
    def step_s(self) -> float:
        """Seconds of an iteration with all slots taken."""
        return self.pace.step_s + self.pace.sequence_s * self.slots / self.engines

    @property
    def tokens_per_s(self) -> float:
        """Theta of equation 2, while nothing is prefilled."""
        step_s = self.step_s
        return self.slots / step_s if step_s > 0 else math.inf

    def service(self, work: Work) -> tuple[float, float]:
        """Seconds of its time that this work takes, and the sum of their squares, request by request."""
        token_s = 1.0 / self.tokens_per_s
        decode_s, prefill_s = work.output_mean * token_s, _prefill_s(self, NOTHING, work)
        return max(decode_s, prefill_s) if self.apart else decode_s + prefill_s, work.output_sq * token_s * token_s


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds to come; normal, says equation 3."""

    mean_s: float
    var_s2: float = 0.0

    def bound(self, z: float = 2.33) -> float:
        """z standard deviations above: 2.33 is not exceeded in 99 of 100 cases, 1.28 in 9 of 10."""
        return self.mean_s + z * math.sqrt(self.var_s2)

    def then(self, other: "Wait") -> "Wait":
        """Another one, independent, begins when this is over."""
        return Wait(self.mean_s + other.mean_s, self.var_s2 + other.var_s2)


def queue_wait(instance: Instance, running: Work, ahead: Work, slots: float = 1.0) -> Wait:
    """Until there is room for a request that comes now and stands behind `ahead`: W of equation 1.

    running: what is left of those at the instance, prompts that are not prefilled yet among it; slots: the room that it
    takes itself, in requests of usual size.
    """
    if running.count + ahead.count + slots <= instance.slots:
        return Wait(0.0)
    step_s = instance.step_s
    steps, var = _start(instance.slots, running, ahead, slots, _idle_steps(instance, step_s))
    mean_s = steps * step_s
    prefill_s = _prefill_s(instance, running, ahead)
    mean_s = max(mean_s, prefill_s) if instance.apart else mean_s + prefill_s
    return Wait(mean_s, var * step_s * step_s + (DOUBT * mean_s) ** 2)


def first_token(instance: Instance, running: Work, ahead: Work, prompt_tokens: float, slots: float = 1.0) -> Wait:
    """Until the first token of such a request, whose prompt has so many tokens: W + P of equation 1."""
    pace = instance.pace
    at_once = running.count + ahead.count + slots <= instance.slots
    beside = running.count + ahead.count if at_once else instance.slots
    iteration_s = pace.step_s + pace.sequence_s * beside / instance.engines
    own_s = prompt_tokens * pace.prefill_token_s + iteration_s
    own_var = (0.3 * iteration_s) ** 2
    if at_once:
        # It enters at the end of an iteration that runs: half of it is to come.
        own_s += _prefill_s(instance, running, ahead) + instance.gap_s + 0.5 * min(1.0, beside) * iteration_s
        return Wait(own_s, own_var + (DOUBT * own_s) ** 2)
    own_s += _idle_steps(instance, iteration_s) * iteration_s
    wait = queue_wait(instance, running, ahead, slots)
    return Wait(wait.mean_s + own_s, wait.var_s2 + own_var)


def decode(instance: Instance, running: Work, ahead: Work, own: Work) -> Wait:
    """From the first token of `own`'s last request to the last token of all of them: D of equation 4, over a group.

    A request alone: its output times the time of an iteration, which continuous batching slows down by the sequences
    and the prompts beside it. Of many that run at once the longest counts.
    """
    if own.count <= 0.0:
        return Wait(0.0)
    together = min(own.count, instance.slots)
    mean = own.output_mean / own.count
    square = own.output_sq / own.count
    if together > 1.0:
        shape, scale = _weibull(mean, square)
        steps, var = _earliest(shape, scale, together, together / (together + 1.0))
    else:
        steps, var = mean, max(0.0, square - mean * mean)
    beside = min(instance.slots, running.count + ahead.count + own.count) / instance.engines
    pace = instance.pace
    iteration_s = pace.step_s + pace.sequence_s * beside
    line = ahead.output_mean + own.output_mean
    if line and not instance.apart:  # prompts enter as often as outputs end
        iteration_s += pace.prefill_token_s * beside * (ahead.prompt_tokens + own.prompt_tokens) / line
    mean_s = max(0.0, steps - 1.0) * iteration_s
    return Wait(mean_s, var * iteration_s * iteration_s + (DOUBT * mean_s) ** 2)


def completion(instance: Instance, running: Work, ahead: Work, own: Work) -> Wait:
    """Until the last token of all of `own`, a request or a group: C of equations 1 and 5."""
    if own.count <= 0.0:
        return Wait(0.0)
    last = min(1.0, 1.0 / own.count)  # a single one may take more room than a usual one
    before = ahead + own.times(1.0 - last)
    first = first_token(instance, running, before, own.prompt_tokens * last, own.count * last)
    return first.then(decode(instance, running, ahead, own))


def _prefill_s(instance: Instance, running: Work, ahead: Work) -> float:
    """Of the prompts before: seconds by which decoding, or prefill itself, is later."""
    return (running.prompt_tokens + ahead.prompt_tokens) * instance.pace.prefill_token_s / instance.engines


def _idle_steps(instance: Instance, step_s: float) -> float:
    """Iterations in which a slot stands empty between two requests: a newcomer enters at the end of one."""
    if instance.gap_s <= 0.0 or step_s <= 0.0:
        return 0.0
    return max(1.0, 0.5 + instance.gap_s / step_s)


def _start(slots: float, running: Work, ahead: Work, own: float, idle: float) -> tuple[float, float]:
    """Iterations until there is room behind `ahead`, and their variance; there is none now."""
    now = min(max(0.0, slots - running.count), ahead.count)  # so many of the line start at once
    share = now / ahead.count if now else 0.0
    count = running.count + now
    if count <= 0.0:
        return 0.0, 0.0  # larger than the instance: whoever asks has to see that
    held = running.output_mean + share * ahead.output_mean
    held_sq = running.output_sq + share * ahead.output_sq
    ends = ahead.count + own - (slots - running.count)  # so many have to end
    reached = ends / (count + 1.0)
    later = ahead.count - now
    if later <= 0.0 or not ahead.output_mean:
        steps, var = _earliest(*_weibull(held / count, held_sq / count), count, reached)
        misfit = MISFIT * held / count
        return steps, var + misfit * misfit
    one, one_sq = ahead.output_mean / ahead.count, ahead.output_sq / ahead.count
    left = one_sq / (2.0 * one)  # of one that is met at a random moment
    spread2 = one_sq / (one * one) - 1.0
    left_var = one * one * (1.0 + spread2) * (1.0 + 5.0 * spread2) / 12.0  # if lengths have a gamma distribution
    slots = max(slots, own)
    others = slots - own
    steps = held / max(slots, count)  # more may run than there are slots by now
    steps += ((1.0 - share) * ahead.output_mean + later * idle - others * left) / slots
    var = (running.output_var + ahead.output_var + others * left_var) / (slots * slots)
    # Requests of one length that began together end together: then they are not unfinished at random.
    held_spread2 = held_sq * count / (held * held) - 1.0 if held else 1.0
    var += left_var * max(0.0, 1.0 - 3.0 * spread2) * max(0.0, 1.0 - 3.0 * held_spread2)
    if reached < _SOON:
        # Newcomers' ends come on top of the first ones': with both of the same lengths, at most F / (1 - F) of all.
        shape, scale = _weibull(held / count, held_sq / count)
        steps = max(steps, _earliest(shape, scale, count, reached / (1.0 + reached))[0])
        if reached < _NEARLY_ALL:
            latest, latest_var = _earliest(shape, scale, count, reached)
            steps, var = min(steps, latest), min(var, latest_var)
    misfit = MISFIT * one
    return steps, var + misfit * misfit


def _weibull(mean: float, square: float) -> tuple[float, float]:
    """Shape and scale of the Weibull distribution with this mean and mean square."""
    spread = math.sqrt(max(0.0, square / (mean * mean) - 1.0)) if mean > 0.0 else 1.0
    shape = min(max(spread, _SPREAD_LEAST), _SPREAD_MOST) ** _SHAPE_POWER
    return shape, mean / math.gamma(1.0 + 1.0 / shape)


def _earliest(shape: float, scale: float, count: float, reached: float) -> tuple[float, float]:
    """When this share of `count` such lengths is over, and its variance: an order statistic."""
    reached = min(reached, _NEARLY_ALL)
    passed = -math.log1p(-reached)
    at = scale * passed ** (1.0 / shape)
    deviation = at / (shape * passed) * math.sqrt(reached / ((count + 2.0) * (1.0 - reached)))
    return at, deviation * deviation
