"""A load scenario: who asks what how often. One TOML file is one scenario; the simulator reads the same files."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from random import Random

FOLDER = Path(__file__).parent / "scenarios"


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    about: str
    users: int  # at once, HTTP and gRPC together
    spawn_per_s: float
    pause_s: tuple[float, float]  # between two requests of a user: shortest, longest
    images: dict[int, float]  # number of images -> weight
    max_tokens: tuple[int, int]
    prompt_words: tuple[int, int]
    slo_classes: dict[str, float]  # name -> weight
    grpc_share: float  # of the users
    stream: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    images: tuple[int, ...]  # numbers of loadtest.photos
    max_tokens: int
    slo_class: str


def load(name_or_path: str) -> Scenario:
    """A scenario by its name, or any TOML file.

    Raises:
        FileNotFoundError: there is none; the message lists those there are.
    """
    packaged = FOLDER / f"{name_or_path}.toml"
    path = packaged if packaged.is_file() else Path(name_or_path)
    if not path.is_file():
        raise FileNotFoundError(f"no scenario {name_or_path!r}; there are: {', '.join(names())}")
    raw = tomllib.loads(path.read_text())
    return Scenario(
        name=path.stem,
        about=raw["about"],
        users=int(raw["users"]),
        spawn_per_s=float(raw["spawn_per_s"]),
        pause_s=(float(raw["pause_s"][0]), float(raw["pause_s"][1])),
        images={int(count): float(weight) for count, weight in raw["images"].items()},
        max_tokens=(int(raw["max_tokens"][0]), int(raw["max_tokens"][1])),
        prompt_words=(int(raw["prompt_words"][0]), int(raw["prompt_words"][1])),
        slo_classes={name: float(weight) for name, weight in raw["slo_classes"].items()},
        grpc_share=float(raw["grpc_share"]),
        stream=bool(raw.get("stream", True)),
    )


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


_OPENINGS = ("Tell me about", "Describe", "What do you see in", "Compare", "Explain", "List what matters about")
_WORDS = ("rivers", "mills", "turbines", "water", "stones", "a bridge", "the weather", "an old town", "light", "trees")


def question(scenario: Scenario, rng: Random) -> Question:
    count = rng.choices(list(scenario.images), list(scenario.images.values()))[0]
    words = " and ".join(rng.choice(_WORDS) for _ in range(max(1, rng.randint(*scenario.prompt_words) // 2)))
    return Question(
        text=f"{rng.choice(_OPENINGS)} {words}.",
        images=tuple(rng.randrange(1 << 16) for _ in range(count)),
        max_tokens=rng.randint(*scenario.max_tokens),
        slo_class=rng.choices(list(scenario.slo_classes), list(scenario.slo_classes.values()))[0],
    )
