"""The proxy model: a light text encoder and trained heads tell how long the answers to prompts will be.

After SSJF (arXiv 2404.08509), with a distribution in place of a class. Not thread-safe, called from one thread.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import numpy as np

from headrace.core.errors import Unavailable
from headrace.core.lengths import Features, Prediction
from headrace.predictor.adapting import adapted, load_deltas
from headrace.predictor.encoder import Encoder, encoder_path
from headrace.predictor.heads import ADAPTER_FILE, HEADS_FILE, MANIFEST_FILE, Heads, Said, assets, predictions
from headrace.predictor.reading import Reader

# Padding included. More at once is no faster on a CPU, and a short prompt would wait for the long ones.
TOKENS_AT_ONCE = 1_024


@dataclass(frozen=True, slots=True)
class Asked:
    text: str  # the last user turn
    features: Features


def lacking() -> str:
    """What of the shipped predictor is missing here; empty if all is there. Loads nothing."""
    try:
        encoder_path()
    except Unavailable as error:
        return str(error)
    names = [name for name in (HEADS_FILE, MANIFEST_FILE, ADAPTER_FILE) if not (assets() / name).is_file()]
    return f"the length predictor's {' and '.join(names)} are missing: run `make predictor`" if names else ""


class Proxy:
    """Raises on loading:
    Unavailable: onnxruntime or the encoder's package is not installed.
    HeadsMismatch: the heads are of another version.
    """

    name = "proxy"

    def __init__(self, threads: int = 1, folder: Traversable | None = None, reader: Reader | None = None) -> None:
        """folder: of heads and adapter, the shipped ones if not given."""
        folder = folder or assets()
        self._heads = Heads(folder, threads)
        with (folder / ADAPTER_FILE).open("rb") as file:
            self._encoder = Encoder(threads, adapted(encoder_path(), load_deltas(file)))
        self._reader = reader or Reader()

    def predict(self, asked: Sequence[Asked]) -> list[Prediction]:
        """In order; each capped at its features.max_tokens."""
        found: dict[int, Prediction] = {}
        for at, said in self.say(asked):
            features = [asked[i].features for i in at]
            found |= zip(at, predictions(said, features), strict=True)
        return [found[i] for i in range(len(asked))]

    def say(self, asked: Sequence[Asked]) -> Iterator[tuple[list[int], Said]]:
        """All outputs of the heads, in batches of like length: (places in `asked`, outputs)."""
        ids = self._reader.read([one.text for one in asked])
        for at in batches([len(one) for one in ids]):
            states, mask = self._encoder.states([ids[i] for i in at])
            some = [asked[i] for i in at]
            yield at, self._heads.say([one.text for one in some], [one.features for one in some], states, mask)


def batches(lengths: Sequence[int], most: int = TOKENS_AT_ONCE) -> Iterator[list[int]]:
    """Places of texts of like length, at most so many tokens together, padding included."""
    order: list[int] = np.argsort(lengths, kind="stable").tolist()
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[i] > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
