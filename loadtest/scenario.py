"""What Locust's users ask: the questions of headrace.workload.users, with words and pictures."""

from dataclasses import dataclass
from random import Random

from headrace.workload.scenario import Scenario, ScenarioError, Users, read
from headrace.workload.users import User
from loadtest.photos import draw_all, photo
from loadtest.wording import text_of_words


@dataclass(frozen=True, slots=True)
class Asked:
    text: str
    images: tuple[bytes, ...]  # JPEG
    max_tokens: int
    slo_class: str

    @property
    def kind(self) -> str:
        return f"{len(self.images)} images" if self.images else "text"


def closed_loop(path_or_name: str) -> tuple[Scenario, Users]:
    """A scenario with users, its pictures drawn. Raises ScenarioError: another kind of scenario, or a bad one."""
    scenario = read(path_or_name)
    users = scenario.workload
    if not isinstance(users, Users):
        raise ScenarioError(f"{scenario.name}: Locust asks as users do; headrace load replays this one")
    if users.images and any(users.images.values()) and max(users.images):
        draw_all(users.picture(number) for number in range(users.pictures))
    return scenario, users


def ask(user: User) -> Asked:
    question = user.question()
    return Asked(
        text=text_of_words(question.prompt_words, Random(question.wording)),
        images=tuple(photo(*picture) for picture in question.pictures),
        max_tokens=question.max_tokens,
        slo_class=question.slo_class,
    )
