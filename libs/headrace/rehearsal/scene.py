"""The scene: how many workers of each stage, what a request costs them, which requests come, how many a second.

Everything is slow enough for two cores to carry seven workers: iterations of tenths of a second, a few requests a
second. All GPUs are H100s of the plant; a request costs encode and prefill the same, so that no stage has spare speed.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Picture

from headrace.client import Image, Message
from headrace.control.constants import GPUS, GpuKind

GPU = "h100"
CLASSES = {"interactive": 2.5, "batch-1": 8.0, "batch-2": 30.0}  # seconds to the first token
ORDER = ("interactive", "batch-1", "interactive", "batch-2")
TIMEOUT_S = 120.0
PICTURES = 2  # of every other request: one for each encoder
PICTURE_PX = 64
PICTURE_TOKENS = 6
TEMPLATE_TOKENS = 19
PROMPT_TOKENS = 256  # of every request, media and template included
CHUNK_TOKENS = 128
DECODE_S = 0.1  # an iteration, of as many sequences as there are slots
SLOTS = 16
ANSWER_TOKENS = 40
KV_BYTES = 256  # a token's: hand-overs are small


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of the load."""

    number: int
    slo_class: str
    pictures: int
    message: Message


@dataclass(frozen=True, slots=True)
class Scene:
    encoders: int = 2
    prefill: int = 2
    decode: int = 3
    rate_rps: float = 3.0
    load: float = 0.85  # of what encoders and prefill can do at full speed

    @property
    def workers(self) -> int:
        return self.encoders + self.prefill + self.decode

    @property
    def kind(self) -> GpuKind:
        return GPUS[GPU]

    @property
    def capacity_rps(self) -> float:
        """Of encoders, and of prefill."""
        return self.rate_rps / self.load

    @property
    def prompt_s(self) -> float:
        """Of prefill, for one request at full speed."""
        return self.prefill / self.capacity_rps

    @property
    def picture_s(self) -> float:
        """Of an encoder at full speed; every other request has PICTURES."""
        return self.encoders / (self.capacity_rps * PICTURES / 2)

    def profile(self) -> str:
        """The profile engine's file."""
        chunk_s = self.prompt_s * CHUNK_TOKENS / PROMPT_TOKENS
        return "\n".join(
            (
                'source = "[I] a rehearsal: paces that two cores can carry, the same load on every stage"',
                f'gpu = "{GPU}"',
                f"kv_bytes_per_token = {KV_BYTES}",
                f"chunk_tokens = {CHUNK_TOKENS}",
                "[cost]",
                f"tokens = [0, {SLOTS}, {CHUNK_TOKENS}]",
                f"tokens_s = [{DECODE_S!r}, {DECODE_S!r}, {chunk_s!r}]",
                "[encode]",
                f"token_s = {self.picture_s / PICTURE_TOKENS!r}",
                "",
            )
        )

    def classes(self) -> str:
        """The file of SLO classes."""
        lines = []
        for name, ttft_s in CLASSES.items():
            lines += [f"[classes.{name}]", f"ttft_s = {ttft_s}"]
            # Nobody is refused: what a cut costs is to be seen in times.
            lines += [f"{limit} = {TIMEOUT_S}" for limit in ("timeout_s", "ttl_s", "refuse_s")]
        return "\n".join((*lines, ""))

    def environment(self, folder: Path) -> dict[str, str]:
        """For every service; writes its two files into the folder."""
        profile, classes = folder / "rehearsal.toml", folder / "classes.toml"
        profile.write_text(self.profile(), encoding="utf-8")
        classes.write_text(self.classes(), encoding="utf-8")
        return {
            "HEADRACE_PROFILE": str(profile),
            "HEADRACE_CLASSES_FILE": str(classes),
            "HEADRACE_SLOTS": str(SLOTS),
            "HEADRACE_PREDICT": "off",  # all answers are as long as asked
            "HEADRACE_ENCODER_CACHE_MB": "0",
            "HEADRACE_PREFIX_CACHE_MB": "0",
        }

    def ask(self, number: int) -> Ask:
        """Classes in turn; every other request has pictures, of each class as many with as without."""
        pictures = PICTURES if (number + number // len(ORDER)) % 2 == 0 else 0
        images = [Image(picture(PICTURES * number + part)) for part in range(pictures)]
        return Ask(number, ORDER[number % len(ORDER)], pictures, Message("user", [*images, words(number, pictures)]))


def words(number: int, pictures: int) -> str:
    """So many that the prompt has PROMPT_TOKENS; no two begin alike."""
    head = f"{number} "
    return head + "x" * (PROMPT_TOKENS - TEMPLATE_TOKENS - len(head) - pictures * PICTURE_TOKENS)


def picture(number: int) -> bytes:
    """A PNG of one colour, of which no other number of the first million has the same."""
    colour = tuple((number * 7919 >> shift) % 256 for shift in (0, 8, 16))
    out = io.BytesIO()
    Picture.new("RGB", (PICTURE_PX, PICTURE_PX), colour).save(out, "PNG")
    return out.getvalue()
