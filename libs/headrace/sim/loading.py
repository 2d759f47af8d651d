"""A simulated worker that serves one model after another: which ones it may load, and the loading itself.

Loading takes the whole device. Whoever still decodes is evicted first; the weights of the model before stay in host
memory as far as there is room for them.
"""

from typing import TYPE_CHECKING

from headrace.core.instance import Loadable
from headrace.sim.held import Held
from headrace.sim.kind import Kind

if TYPE_CHECKING:
    from headrace.sim.worker import Worker


class Shelf:
    """The models of a worker: one is loaded, some are warm, the others lie on its disk."""

    def __init__(self, kind: Kind) -> None:
        self._kinds = {each.model: each for each in (kind, *kind.others)}
        self._most = kind.warm_models
        self._warm: dict[str, None] = {}  # in the order in which they were put away
        self.loadable = self._loadable(kind.model)

    def get(self, model: str) -> Kind | None:
        return self._kinds.get(model)

    def is_warm(self, model: str) -> bool:
        return model in self._warm

    def exchange(self, old: str, new: str) -> None:
        """The new one is loaded; the old one is kept, and who was put away first goes where they are too many."""
        self._warm.pop(new, None)
        self._warm[old] = None
        while len(self._warm) > self._most:
            del self._warm[next(iter(self._warm))]
        self.loadable = self._loadable(new)

    def _loadable(self, loaded: str) -> tuple[Loadable, ...]:
        return tuple(self._seen(kind) for model, kind in self._kinds.items() if model != loaded)

    def _seen(self, kind: Kind) -> Loadable:
        warm = self.is_warm(kind.model)
        load_s = kind.load_warm_s if warm else kind.load_cold_s
        return Loadable(kind.model, load_s, warm, kind.slots, kind.blocks, kind.block_tokens, kind.pace)


class LoadStage:
    """Takes turns on the device with the stage whose model it exchanges."""

    running = 0

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self.wanted = ""

    @property
    def waiting(self) -> int:
        return 1 if self.wanted else 0

    def load(self, model: str) -> None:
        worker = self._worker
        if worker.shelf.get(model) is None:
            worker.load_error = f"{model}: is none of the models of {worker.id}"
            worker.beat()
        elif not worker.draining:
            self.wanted = model
            worker.wake()

    def begin(self) -> bool:
        """The device is free: out with what decodes, in with the other model."""
        worker, model = self._worker, self.wanted
        self.wanted = ""
        if not model or model == worker.kind.model:  # said twice
            return False
        assert worker.llm is not None
        worker.loading, worker.load_error = model, ""
        worker.beat()
        going, copy_s = worker.llm.vacate()
        worker.world.agenda.after(copy_s, self._vacated, model, going)
        return True

    def interrupt(self) -> None:
        """Loading goes on to its end."""

    def change_speed(self) -> None:
        """Loading is the disk's and the link's work."""

    def _vacated(self, model: str, going: list[Held]) -> None:
        worker, shelf = self._worker, self._worker.shelf
        if not worker.runs(self._vacated, model, going):
            return
        assert worker.llm is not None
        worker.llm.copied(going)
        kind, warm = shelf.get(model), shelf.is_warm(model)
        assert kind is not None
        ledger = worker.world.ledger
        ledger.count("swaps")
        ledger.count("loads_warm" if warm else "loads_cold")
        load_s = kind.load_warm_s if warm else kind.load_cold_s
        ledger.count("loading_s", load_s)
        worker.world.agenda.after(load_s, self._loaded, kind)

    def _loaded(self, kind: Kind) -> None:
        worker = self._worker
        if worker.runs(self._loaded, kind):
            worker.shelf.exchange(worker.kind.model, kind.model)
            worker.become(kind)
            worker.over()
