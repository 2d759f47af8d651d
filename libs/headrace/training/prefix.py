"""The language-model stage: projector, begin and end vectors and a prefix KV are trained through the frozen model.

The prefix starts as the exact KV of the default system prompt and the user's header (prefix tuning, Li and Liang
2021), so that step 0 is the plain model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headrace.engines.families.smollm2 import PREFIX_TEXT, WIDTH, SmolLM2
from headrace.modalities.image import ROWS
from headrace.training.batches import Batch, Row, Sampler, collate
from headrace.training.llama import FrozenLlama
from headrace.training.tower import Projector, cosine

_WARM_UP = 15
_VALIDATION_ROWS = ((1, 100), (2, 30), (3, 30), (4, 30), (8, 4))  # (images, rows)


class Trained(Protocol):
    """What the stage trains; a Module."""

    projector: nn.Module
    edges: nn.Parameter
    keys: nn.Parameter
    values: nn.Parameter

    def past(self) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> object: ...


# Indices into the pool, by media part -> the embeddings of those parts one after the other, [rows, width]
Embed = Callable[[Tensor], Tensor]
Counts = dict[str, list[int]]  # name -> right, total


class Adapter(nn.Module):
    """The image adapter: projector, begin and end vectors, prefix."""

    def __init__(self, projector: Projector, edges: Tensor, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.projector = projector
        self.edges = nn.Parameter(edges.clone())  # [2, width]: begin, end
        self.keys = nn.Parameter(keys.clone())  # [layers, KV heads, prefix, head width]
        self.values = nn.Parameter(values.clone())

    def rows(self, features: Tensor) -> Tensor:
        """Tower features [n, 4, 512] -> the six rows of each image, [n, 6, width]."""
        # shape[0], not len(): the exporter traces the one and bakes the other into the graph
        begin, end = (self.edges[i].expand(features.shape[0], 1, WIDTH) for i in (0, 1))
        return torch.cat([begin, self.projector(features), end], 1)

    def embed(self, features: Tensor) -> Embed:
        """Pictures of a pool of features."""

        def rows(pictures: Tensor) -> Tensor:
            images = self.rows(features[pictures].float())
            assert images.shape[1] == ROWS
            return images.flatten(0, 1)

        return rows

    def past(self) -> Tensor:
        return torch.stack([self.keys, self.values], 1)


def start(model: FrozenLlama, family: SmolLM2, projector: Projector) -> Adapter:
    """An adapter at its initial values."""
    edges = torch.tensor([family.encode(" [image]")[0], family.encode(" image")[0]])
    prefix = model.prefix(family.encode(PREFIX_TEXT))
    return Adapter(projector, model.embedding[edges], prefix[:, 0], prefix[:, 1])


@dataclass(frozen=True, slots=True)
class Phase:
    steps: int
    rate: float  # factor on every learning rate
    token_budget: int  # tokens a step, padding included; 800 take about 3 s on two cores
    single_share: float  # of rows with one image; rows with several carry up to three questions each


class Trainer:
    """One cosine cycle of AdamW over answer tokens; its state can be kept and taken up again at any step."""

    def __init__(self, model: FrozenLlama, adapter: Trained, embed: Embed, phase: Phase) -> None:
        self._model, self._adapter, self._embed = model, adapter, embed
        self._optimizer = _optimizer(adapter, phase.rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: cosine(step, phase.steps, _WARM_UP)
        )
        self.step = 0

    def run(self, batches: Iterator[Batch], steps: int) -> float:
        """Train this many steps; returns their mean loss."""
        return sum(self._learn(next(batches)) for _ in range(steps)) / steps

    def _learn(self, batch: Batch) -> float:
        loss = F.cross_entropy(predict(self._model, self._adapter, self._embed, batch), batch.targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._adapter.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        self.step += 1
        value: float = loss.item()
        return value

    def state(self) -> dict[str, object]:
        return {
            "step": self.step,
            "adapter": self._adapter.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def take_up(self, state: dict[str, Any]) -> None:
        self._adapter.load_state_dict(state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.step = state["step"]


def _optimizer(adapter: Trained, rate: float) -> torch.optim.AdamW:
    groups = [
        {"params": list(adapter.projector.parameters()), "lr": 6e-4 * rate},
        {"params": [adapter.edges], "lr": 2e-3 * rate},
        {"params": [adapter.keys], "lr": 1e-2 * rate},
        {"params": [adapter.values], "lr": 5e-3 * rate},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)


def predict(model: FrozenLlama, adapter: Trained, embed: Embed, batch: Batch) -> Tensor:
    """Logits at every position that predicts an answer token."""
    x = model.embedding[batch.tokens].index_put(batch.slots, embed(batch.pictures))
    hidden, _ = model.hidden(x, batch.positions, batch.mask, adapter.past())
    return model.logits(hidden[batch.predicting])


def evaluate(model: FrozenLlama, adapter: Adapter, features: Tensor, sampler: Sampler) -> dict[str, object]:
    """Shares of whole answers that greedy decoding gets right: every token the best one given the right ones before."""
    counts: Counts = {}
    for images, wanted in _VALIDATION_ROWS:
        rows = [sampler.row_of(images, 1) for _ in range(wanted)]
        score(model, adapter, adapter.embed(features), rows, _name, counts)
    return {
        "single": share(counts, "single."),
        "multi": share(counts, "multi."),
        "by_question": by_name(counts),
    }


def _name(row: Row, kind: str) -> str:
    images = len(row.pictures)
    return f"single.{kind}" if images == 1 else f"multi.{kind}.{images}"


def score(
    model: FrozenLlama, adapter: Trained, embed: Embed, rows: list[Row], name: Callable[[Row, str], str], counts: Counts
) -> None:
    """Count right answers under name(row, kind of question)."""
    ordered = sorted(rows, key=lambda row: len(row.tokens))
    for at in range(0, len(ordered), 20):
        batch = collate(ordered[at : at + 20])
        with torch.no_grad():
            best = predict(model, adapter, embed, batch).argmax(-1)
        wrong = {owner for owner, ok in zip(batch.owners, (best == batch.targets).tolist(), strict=True) if not ok}
        for r, row in enumerate(batch.rows):
            for number, question in enumerate(row.questions):
                count = counts.setdefault(name(row, question.kind), [0, 0])
                count[0] += (r, number) not in wrong
                count[1] += 1


def by_name(counts: Counts) -> dict[str, str]:
    return {name: f"{right}/{total}" for name, (right, total) in sorted(counts.items())}


def share(counts: Counts, prefix: str) -> float:
    chosen = [count for name, count in counts.items() if name.startswith(prefix)]
    return round(sum(right for right, _ in chosen) / sum(total for _, total in chosen), 4)
