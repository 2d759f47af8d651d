"""What an embedding depends on: two parts with one content have one embedding, and no others do."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.core.types import Media

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes by their SHA-256, all that preprocessing reads beside them (media.meta, media.tokens), and the model.

    scope: whose requests may share it. A shared embedding tells by its speed that somebody has asked before.
    """

    scope: str
    model: str
    media: Media


def content_of(scope: str, model: str, media: Media) -> Content | None:
    """None: it is nobody's to share, or what its bytes are is not known."""
    return Content(scope, model, media) if scope and media.sha256 else None


class EncoderCache(Generic[V]):
    """Embeddings by content, the least recently used forgotten first. Apart from what requests hold: a value that is
    forgotten here lives on in whoever uses it, and releases of requests take nothing away."""

    def __init__(self, limit_bytes: int) -> None:
        """limit_bytes: of all values together; 0: nothing is kept."""
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._kept: OrderedDict[Content, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, content: Content) -> V | None:
        found = self._kept.get(content)
        if found is None:
            return None
        self._kept.move_to_end(content)
        return found[0]

    def put(self, content: Content, value: V, size_bytes: int) -> None:
        """Whatever is larger than the whole cache is not kept."""
        assert size_bytes > 0, content
        if size_bytes > self.limit_bytes:
            return
        _, before_bytes = self._kept.pop(content, (None, 0))
        self._kept[content] = (value, size_bytes)
        self.used_bytes += size_bytes - before_bytes
        while self.used_bytes > self.limit_bytes:
            _, (_, oldest_bytes) = self._kept.popitem(last=False)
            self.used_bytes -= oldest_bytes


@dataclass(frozen=True, slots=True)
class Home:
    """One life of an encoder: the process after it has forgotten all."""

    worker: str
    incarnation: str


class Affinity:
    """Which encoders have lately been sent which content. A guess: what they still keep is theirs to know."""

    def __init__(self, contents_max: int, homes_max: int) -> None:
        self.contents_max = contents_max
        self.homes_max = homes_max
        self._homes: OrderedDict[Content, tuple[Home, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._homes)

    def homes(self, content: Content) -> Collection[Home]:
        """The latest first."""
        return self._homes.get(content, ())

    def sent(self, content: Content, home: Home) -> None:
        others = [other for other in self._homes.pop(content, ()) if other != home]
        self._homes[content] = (home, *others[: self.homes_max - 1])
        if len(self._homes) > self.contents_max:
            self._homes.popitem(last=False)

    def check(self) -> None:
        assert len(self._homes) <= self.contents_max
        assert all(0 < len(homes) <= self.homes_max for homes in self._homes.values())
