"""The live workers of one model by what they do, so that a decision looks at those alone that it may choose from."""

from collections.abc import Iterator

from headrace.core.queue.worker import Worker


class Pool:
    """Made anew whenever a worker comes, goes or drains; between two such moments the lists stand."""

    __slots__ = ("_encoders", "decodes", "llms", "prefills", "split", "workers")

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.prefills: list[Worker] = []
        self.decodes: list[Worker] = []
        self.llms: list[Worker] = []  # either, or both
        self._encoders: dict[str, list[Worker]] = {}
        self.split = False  # by roles

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers)

    def add(self, worker: Worker) -> None:
        self.workers.append(worker)
        if worker.prefills:
            self.prefills.append(worker)
        if worker.decodes:
            self.decodes.append(worker)
        if worker.prefills or worker.decodes:
            self.llms.append(worker)
            self.split |= worker.role != "both"
        for modality in worker.modalities if worker.encodes else ():
            self._encoders.setdefault(modality, []).append(worker)

    def encoders(self, modality: str) -> list[Worker]:
        return self._encoders.get(modality, [])


EMPTY = Pool()
