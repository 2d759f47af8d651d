"""Users in a closed loop: each asks, waits for the answer, thinks, and asks again.

Pure: Locust and the simulator draw the same questions, because each user has a random generator of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from headrace.workload.arrival import Arrival, Part
from headrace.workload.tables import Count, NotNegative, Positive, Share

# Width and height of common photographs and clippings, thumbnails to 2 megapixels.
SIZES = ((64, 48), (320, 240), (451, 300), (512, 512), (640, 427), (800, 600), (1024, 768), (1411, 1411))
IMAGES_MAX = 64  # of one question: 64 of the largest photographs are a gateway's message limit


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks next; `wording` is the seed of the words themselves."""

    prompt_words: int
    pictures: tuple[tuple[int, int, int], ...]  # number, width, height
    max_tokens: int
    slo_class: str
    wording: int

    def arrival(self, at_s: float) -> Arrival:
        """As the simulator takes it: the words are common ones, a token each; the answer is as long as it may be."""
        parts = tuple(
            [Part("image", width, height, content=f"picture {number}") for number, width, height in self.pictures]
        )
        return Arrival(at_s, self.prompt_words, self.max_tokens, parts, slo_class=self.slo_class)


@dataclass(frozen=True, slots=True)
class Users:
    users: Count  # at once
    pause_s: tuple[NotNegative, NotNegative]  # between an answer and the next question: shortest, longest
    max_tokens: tuple[Count, Count]  # least, most
    prompt_words: tuple[Count, Count] | None = None
    prompt_tokens: tuple[Count, Count] | None = None  # instead of words
    images: Mapping[int, NotNegative] | None = None  # number of images -> weight; text alone unless said
    image_sizes: tuple[tuple[Count, Count], ...] = SIZES  # width, height: all equally likely
    pictures: Count = 24  # different ones in all: with few, users ask about the same ones again
    spawn_per_s: Positive = 1.0  # users that begin in a second
    grpc_share: Share = 0.5  # of the users of a live mesh; the others come over HTTP

    def __post_init__(self) -> None:
        if (self.prompt_words is None) == (self.prompt_tokens is None):
            raise ValueError("prompt_words: say how long prompts are, either in prompt_words or in prompt_tokens")
        if self.images is not None:
            if not any(self.images.values()):
                raise ValueError("images: at least one number of images needs a weight above 0")
            if max(self.images) > IMAGES_MAX:
                raise ValueError(f"images: a question has at most {IMAGES_MAX} images")
        if not self.image_sizes:
            raise ValueError("image_sizes: needs at least one size, [width, height]")
        for name in ("pause_s", "max_tokens", "prompt_words", "prompt_tokens"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name}: the first value is the least, the second the most; is {list(pair)}")

    def scaled(self, factor: float) -> "Users":
        """So many times as many users; at least one."""
        return replace(self, users=max(1, round(self.users * factor)), spawn_per_s=self.spawn_per_s * factor)

    def picture(self, number: int) -> tuple[int, int, int]:
        """Number, width and height of one of the `pictures`."""
        return number, *self.image_sizes[number % len(self.image_sizes)]

    def start_s(self, number: int) -> float:
        """When the number-th user begins."""
        return number / self.spawn_per_s

    def question(self, rng: Random, classes: Mapping[str, float]) -> Question:
        """classes: name -> weight."""
        words = self.prompt_words or self.prompt_tokens
        assert words is not None
        count = rng.choices(list(self.images), list(self.images.values()))[0] if self.images else 0
        pictures = tuple(self.picture(rng.randrange(self.pictures)) for _ in range(count))
        return Question(
            prompt_words=rng.randint(*words),
            pictures=pictures,
            max_tokens=rng.randint(*self.max_tokens),
            slo_class=rng.choices(list(classes), list(classes.values()))[0],
            wording=rng.getrandbits(32),
        )


class User:
    """One of a scenario's users: the same number and seed ask the same questions with the same pauses."""

    def __init__(self, users: Users, classes: Mapping[str, float], seed: int, number: int) -> None:
        self.users = users
        self.start_s = users.start_s(number)
        self.rng = Random(f"{seed}/{number}")
        self._classes = classes

    def question(self) -> Question:
        return self.users.question(self.rng, self._classes)

    def pause_s(self) -> float:
        return self.rng.uniform(*self.users.pause_s)
