"""Mixed text and image traffic as the Azure LMM trace shows it; text alone as the Azure 2023 traces and ShareGPT do.

Each modality has a process of its own, so its peaks come when they like; audio and video can be mixed in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from headrace.workload import fitted
from headrace.workload.arrival import Arrival
from headrace.workload.content import AUDIO, SIZES, VIDEO, Clips, Content, Counting, Images, Sizes, Text
from headrace.workload.processes import Bursts, ExponentialGaps, GammaGaps, Modulated, Process, Switching
from headrace.workload.quantiles import Shares
from headrace.workload.rates import DAY_S, HOUR_S, WEEK_S, RateCurve, constant, diurnal, hourly, require
from headrace.workload.shape import merge

# Fitted to the spread of the minutes within the published plot's pixels [M]: a text minute varies 1.5 times as a
# Poisson one would; the image rate doubles and more for about a minute in nine.
TEXT_CV = 1.5
IMAGE_SPIKES = Switching(calm_s=480.0, burst_s=60.0, burst_factor=4.0)
# Bursts by images per request last hours: on 15-16, 18, 20 and 21 October [M]. How long and how often is read off
# coarsely [I].
COUNT_BURSTS = Switching(calm_s=36 * HOUR_S, burst_s=4 * HOUR_S, burst_factor=1.0)


@dataclass(frozen=True)
class Stream:
    """One kind of requests: when they come and what they hold, each from a random generator of its own."""

    process: Process
    content: Content

    def arrivals(self, rng: Generator, until_s: float) -> Iterator[Arrival]:
        when, what = rng.spawn(2)
        for times in self.process.blocks(when, until_s):
            yield from self.content.fill(what, times)


@dataclass(frozen=True)
class CountBursts:
    """Hours in which requests hold many images: draws come from the top of the law with probability `grip`.

    The law over the whole run stays what it is: the calm hours get what the bursts leave. A run that is all burst or
    all calm therefore shows the plain law. `most` of the requests at once can be in bursts, else the top is no top.
    """

    switching: Switching = COUNT_BURSTS
    grip: float = 0.8
    most: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.grip <= 1, "grip", "between 0 and 1")
        require(0 < self.most < 1, "most", "between 0 and 1")

    def counting(self, law: Shares, curve: RateCurve, rng: Generator, until_s: float) -> Counting:
        starts, bursting = self.switching.states(rng, until_s)
        mass = np.diff(curve.expected(np.append(starts, until_s)))
        share = float(mass[bursting].sum() / mass.sum()) if mass.sum() else 0.0
        if not 0 < share <= self.most:
            return Counting(law, law)
        calm, burst = law.split_top(share, self.grip)
        return Counting(calm, burst, starts, bursting)


@dataclass(frozen=True)
class Multimodal:
    """The Azure LMM 2025 week, at any rate and mix.

    Shares are of requests over a whole period of the profile; within a week's hours the image share wanders between
    about 16 and 78 %, as the trace's does. `profile`: the trace's own week from `start_hour` (0 is Tuesday 12:00 UTC),
    a day for each modality with `image_lag_hours` between the peaks, or flat. Bursts on a short run are a matter of its
    seed. `images`: "clipped" to 16 as ModServe does, or "raw" with up to 529, whose bursts exceed ten times the
    calm hours' images; 16 at most cannot grow so much without more requests.

    Raises ProcessError: a share or rate that cannot be.
    """

    rate_rps: float = fitted.LMM_REQUESTS_PER_MIN / 60
    image_share: float = fitted.LMM_IMAGE_SHARE
    audio_share: float = 0.0
    video_share: float = 0.0
    profile: Literal["week", "day", "flat"] = "week"
    start_hour: float = 0.0
    image_lag_hours: float = 8.0  # of the day profile alone [I]
    images: Literal["clipped", "raw"] = "clipped"
    bursty: bool = True  # without: no spikes of the image rate, no bursts of images per request, Poisson gaps
    image_token_share: float = fitted.IMAGE_TOKEN_SHARE
    count_tokens: bool = False  # see content.Images
    spikes: Switching = IMAGE_SPIKES
    count_bursts: CountBursts = CountBursts()
    sizes: Sizes = SIZES
    audio: Clips = AUDIO
    video: Clips = VIDEO

    def __post_init__(self) -> None:
        require(self.rate_rps > 0, "rate_rps", "above 0")
        for name in ("image_share", "audio_share", "video_share", "image_token_share"):
            require(0 <= getattr(self, name) <= 1, name, "between 0 and 1")
        require(self.text_share >= -1e-9, "image_share", "with audio_share and video_share at most 1 together")
        require(self.profile in ("week", "day", "flat"), "profile", "one of week, day, flat")
        require(self.images in ("clipped", "raw"), "images", "one of clipped, raw")

    @property
    def text_share(self) -> float:
        return 1.0 - self.image_share - self.audio_share - self.video_share

    @property
    def period_s(self) -> float:
        return {"week": WEEK_S, "day": DAY_S, "flat": HOUR_S}[self.profile]

    def curve(self, modality: str) -> RateCurve:
        """The modality's rate; audio and video go with the text's hours."""
        rate_rps = self.rate_rps * max(getattr(self, f"{modality}_share"), 0.0)
        if self.profile == "flat" or not rate_rps:
            return constant(rate_rps)
        if self.profile == "day":
            lag = self.image_lag_hours if modality == "image" else 0.0
            curve = diurnal(rate_rps, swing=0.6, peak_hour=(14.0 + lag) % 24)
        else:
            curve = hourly(fitted.IMAGE_WEEK if modality == "image" else fitted.TEXT_WEEK, rate_rps)
        return curve.shifted(self.start_hour * HOUR_S)

    def arrivals(self, rng: Generator, duration_s: float) -> Iterator[Arrival]:
        """In order of time, before duration_s. Each modality draws from a child of `rng`: changing one leaves the
        others' requests as they are."""
        text, image, sound, film = rng.spawn(4)
        gaps = GammaGaps(TEXT_CV) if self.bursty else ExponentialGaps()
        streams = [
            Stream(Modulated(self.curve("text"), gaps), Text()).arrivals(text, duration_s),
            self._image_stream(image, duration_s),
            Stream(Modulated(self.curve("audio"), gaps), self.audio).arrivals(sound, duration_s),
            Stream(Modulated(self.curve("video"), gaps), self.video).arrivals(film, duration_s),
        ]
        shares = (self.text_share, self.image_share, self.audio_share, self.video_share)
        return merge(*(stream for stream, share in zip(streams, shares, strict=True) if share > 0))

    def _image_stream(self, rng: Generator, duration_s: float) -> Iterator[Arrival]:
        counts, rest = rng.spawn(2)
        law = fitted.LMM_IMAGES_CLIPPED if self.images == "clipped" else fitted.LMM_IMAGES
        curve = self.curve("image")
        if self.bursty:
            counting = self.count_bursts.counting(law, curve, counts, duration_s)
            process: Process = Bursts(curve, self.spikes)
        else:
            counting, process = Counting(law, law), Modulated(curve)
        content = Images(counting, token_share=self.image_token_share, sizes=self.sizes, count_tokens=self.count_tokens)
        return Stream(process, content).arrivals(rest, duration_s)


@dataclass(frozen=True)
class TextOnly:
    """Text as a public trace has it: "azure-conv" and "azure-code" with the trace's own rate and burstiness,
    "sharegpt" with Poisson arrivals at 1/s. `rate_rps` and `cv` replace the trace's where they are not 0."""

    like: Literal["azure-conv", "azure-code", "sharegpt"] = "azure-conv"
    rate_rps: float = 0.0
    cv: float = 0.0

    def __post_init__(self) -> None:
        require(self.like in _TEXTS, "like", f"one of {', '.join(_TEXTS)}")
        require(self.rate_rps >= 0, "rate_rps", "not negative")

    def arrivals(self, rng: Generator, duration_s: float) -> Iterator[Arrival]:
        rate_rps, cv, content = _TEXTS[self.like]
        process = Modulated(constant(self.rate_rps or rate_rps), GammaGaps(self.cv or cv))
        return Stream(process, content).arrivals(rng, duration_s)


_TEXTS: dict[str, tuple[float, float, Text]] = {
    "azure-conv": (fitted.CONV_RPS, fitted.CONV_CV, Text(fitted.CONV_INPUT, fitted.CONV_OUTPUT)),
    "azure-code": (fitted.CODE_RPS, fitted.CODE_CV, Text(fitted.CODE_INPUT, fitted.CODE_OUTPUT)),
    "sharegpt": (1.0, 1.0, Text(fitted.SHAREGPT_INPUT, fitted.SHAREGPT_OUTPUT)),
}
