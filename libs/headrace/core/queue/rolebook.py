"""What is remembered between two looks at roles: the prompts sent of late, and what each model's policy remembers."""

from headrace.core.queue.pool import Pool
from headrace.core.scaling.windows import Window
from headrace.core.stages.roles import Elastic

RATE_S = 30.0  # [I] the autoscaler's short window


class RoleBook:
    def __init__(self) -> None:
        self.policies: dict[str, Elastic] = {}  # by model
        self.pools: dict[str, Pool] | None = None  # those of the last look; other ones are looked at again
        self.next_s = 0.0
        self._sent: dict[str, Window] = {}

    def sent(self, model: str, prompt_tokens: int, now_s: float) -> None:
        window = self._sent.get(model)
        if window is None:
            window = self._sent[model] = Window(RATE_S, now_s)
        window.add(prompt_tokens, now_s)

    def sent_per_s(self, model: str, now_s: float) -> float:
        """Prompt tokens a second."""
        window = self._sent.get(model)
        return window.over(RATE_S, now_s).per_s if window is not None else 0.0
