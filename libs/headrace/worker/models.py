"""The models that a worker may serve: one is loaded, some wait in host memory, the rest lie on disk."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.core.errors import HeadraceError
from headrace.core.instance import Loadable, Pace
from headrace.mesh.errors import BadSetup
from headrace.worker.outfit import Outfit

# Until a load of that kind has been measured: what a small model takes from a disk, and from host memory.
GUESS_S = {False: 10.0, True: 1.0}  # by: warm
# What weights that are missing, misshapen or too large for this machine show themselves as.
LOAD_ERRORS = (HeadraceError, BadSetup, OSError, RuntimeError, ValueError, MemoryError)

InThread = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model before it is loaded."""

    name: str
    open: Callable[[], Outfit]  # takes seconds to minutes
    slots: int
    blocks: int
    block_tokens: int
    pace: Pace = field(default_factory=Pace)  # as its profile says
    modelled_s: dict[bool, float] | None = None  # by warm: what its profile says that a load takes; None: it is real


class Models:
    def __init__(
        self, loaded: Outfit, cards: Iterable[Card], in_thread: InThread, warm_max: int, first_load_s: float = 0.0
    ) -> None:
        """in_thread: runs a call in the thread that the engines belong to. first_load_s: what `loaded` took."""
        self.loaded = loaded
        self._cards = {card.name: card for card in cards}
        self._in_thread = in_thread
        self._warm_max = warm_max
        self._warm: OrderedDict[str, Outfit] = OrderedDict()  # parked; the least recently used first
        self._took_s: dict[tuple[str, bool], float] = {}  # by model and warm
        self._paces: dict[str, Pace] = {}  # measured
        card = self._cards.get(loaded.spec.name)
        if card is not None and card.modelled_s is None and first_load_s:
            self._took_s[card.name, False] = first_load_s

    def __contains__(self, model: str) -> bool:
        return model in self._cards or model == self.loaded.spec.name

    def pace(self, model: str) -> Pace:
        """Its profile's, else as it was measured when it was loaded last."""
        card = self._cards.get(model)
        known = card.pace if card is not None else Pace()
        return self._paces.get(model, known) if known == Pace() else known

    def loadable(self) -> tuple[Loadable, ...]:
        """All but the loaded one."""
        return tuple([self._loadable(card) for card in self._cards.values() if card.name != self.loaded.spec.name])

    def _loadable(self, card: Card) -> Loadable:
        warm = card.name in self._warm
        return Loadable(
            card.name, self._load_s(card, warm), warm, card.slots, card.blocks, card.block_tokens, self.pace(card.name)
        )

    def _load_s(self, card: Card, warm: bool) -> float:
        """As it took the last time; else as its profile says; else as long as any other model took."""
        measured = self._took_s.get((card.name, warm))
        if measured is not None:
            return measured
        if card.modelled_s is not None:
            return card.modelled_s[warm]
        others = [took_s for (_, was_warm), took_s in self._took_s.items() if was_warm == warm]
        return max(others, default=GUESS_S[warm])

    async def change(self, model: str, measured: Pace) -> str:
        """Serve this model instead of the loaded one, whose engine is empty. Returns why that did not come about, the
        model before it being served again; empty: it did.

        measured: how fast the model before it was.
        """
        before, warm, began_s = self.loaded.spec.name, model in self._warm, time.monotonic()
        if model == before:
            return ""
        if measured != Pace():
            self._paces[before] = measured
        await self._in_thread(self._put_away, self.loaded)
        why = ""
        try:
            self.loaded = await self._in_thread(self._take, model)
        except LOAD_ERRORS as error:
            why = f"{model}: {error}"
        if why:  # only now: the error kept alive what had been read, and there may be no room for both
            self.loaded = await self._in_thread(self._take, before)
            return why
        modelled_s = self._cards[model].modelled_s
        if modelled_s is not None:
            await asyncio.sleep(max(0.0, modelled_s[warm] - (time.monotonic() - began_s)))
        self._took_s[model, warm] = time.monotonic() - began_s
        return ""

    # --- in the thread of the engines ---

    def _put_away(self, outfit: Outfit) -> None:
        if outfit.engine is not None:
            outfit.engine.park()
        self._warm[outfit.spec.name] = outfit

    def _take(self, model: str) -> Outfit:
        """From host memory or from disk; before that, what is warm beyond the limit goes, for its memory."""
        outfit = self._warm.pop(model, None)
        while len(self._warm) > self._warm_max:
            self._warm.popitem(last=False)
        if outfit is None:
            outfit = self._cards[model].open()
        elif outfit.engine is not None:
            outfit.engine.unpark()
        return replace(outfit, pace=self.pace(model))
