"""Files and batches of a gateway put together: records, content, outcomes, who works at what; and what sweeps up."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.routing import Route

from headrace.mesh.classes import read_classes
from headrace.mesh.config import Settings
from headrace.mesh.files import FileStore
from headrace.mesh.logs import get_logger
from headrace.mesh.outcomes import Outcomes
from services.gateway.batch_crew import Crew
from services.gateway.batch_errand import ENDPOINTS, Endpoint
from services.gateway.batch_run import Tools
from services.gateway.batch_shelf import Shelf
from services.gateway.batch_windows import windows_of
from services.gateway.batches import BatchPages
from services.gateway.files import FilePages
from services.gateway.front import Front
from services.gateway.http_reply import Disconnects

SWEEP_S = 60.0

log = get_logger("batches")


class Desk(Collector):
    def __init__(self, front: Front, settings: Settings, more: Mapping[str, Endpoint] = ENDPOINTS) -> None:
        """more: that batches may post to, beside ENDPOINTS. Raises BadSetup: windows that make no sense."""
        endpoints = {**ENDPOINTS, **more}
        bus, kept_s = front.gateway.bus, settings.batch_kept_s
        self._kept_s = kept_s
        self._disconnects = Disconnects()
        self._shelf, self._files = Shelf(bus, settings), FileStore(settings.data_dir)
        self._outcomes = Outcomes(bus, settings)
        self._tools = Tools(
            front=front,
            disconnects=self._disconnects,
            shelf=self._shelf,
            files=self._files,
            outcomes=self._outcomes,
            endpoints=endpoints,
            lines_max=settings.batch_lines,
            inflight=settings.batch_inflight,
            kept_s=kept_s,
        )
        self._crew = Crew(self._tools, front.gateway.name, secrets.token_hex(8))
        windows = windows_of(settings.batch_windows, read_classes(settings.classes_file))
        self._pages = (
            FilePages(front, self._shelf, self._files, settings.files_bytes, kept_s),
            BatchPages(front, self._shelf, endpoints, windows, settings.batches_open, kept_s),
        )
        self._front = front
        self._sweeping: asyncio.Task[None] | None = None

    def routes(self) -> Sequence[Route]:
        return [route for pages in self._pages for route in pages.routes()]

    async def start(self) -> None:
        """Raises BadSetup: NATS has no room for the streams."""
        await self._outcomes.open()
        await self._shelf.start()
        self._front.gateway.on_sweep += [self._crew.sweep, self._disconnects.sweep]
        self._front.gateway.metrics.registry.register(self)
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="files-sweep")

    async def stop(self) -> None:
        """Before the gateway closes: its runs must not take their requests along."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._crew.stop()
        await self._shelf.stop()

    async def _sweep(self) -> None:
        """Content goes when its record is over; without any record, only once it is as old as a record would get: a
        stream that was lost, and restored, must find it."""
        while True:
            await asyncio.sleep(SWEEP_S)
            if not self._shelf.catalogue.complete:
                continue
            await self.sweep()

    async def sweep(self) -> None:
        for record in self._shelf.forget_old():
            await self._files.drop(record.id)
        swept = await self._files.sweep(self._shelf.file_ids(), self._kept_s)
        if swept:
            log.info("stray_files_dropped", files=swept)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("headrace_batches_running", "Batches that this gateway works at", len(self._crew))
        lines = CounterMetricFamily("headrace_batch_lines", "Lines that ended here, by kind", labels=["kind"])
        for kind, count in self._crew.lines.items():
            lines.add_metric([kind], count)
        yield lines
