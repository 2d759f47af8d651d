"""A queue manager process: connections first, then standby until the leadership is free, then the core."""

import asyncio
import os
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import grpc.aio

from headrace.core.errors import Unavailable
from headrace.core.ordering import ENCODER_ORDER, ORDERS
from headrace.core.planning.registry import PLANNERS
from headrace.core.queue import QueueConfig
from headrace.core.queue.config import EncoderSharing, Roles
from headrace.core.slo import Classes
from headrace.engines.families import family
from headrace.mesh import metrics, rpc, subjects, telemetry
from headrace.mesh.binding import Inner
from headrace.mesh.blobs import DirectoryBlobs
from headrace.mesh.bus import Bus
from headrace.mesh.classes import read_classes
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.guard import operators
from headrace.mesh.health import StreamWatch, common_readings, redis_reading
from headrace.mesh.journal import Journal
from headrace.mesh.kubernetes import Cluster, Kubernetes
from headrace.mesh.leader import Leadership
from headrace.mesh.lifecycle import Lifecycle, collect_less
from headrace.mesh.store import Store
from headrace.predictor.service import PredictorThread
from headrace.v1 import queue_pb2_grpc
from services.queue_manager.actuators import Actuator, Deployments, Supervisor
from services.queue_manager.chores import Chores
from services.queue_manager.lengths import start_predictor
from services.queue_manager.metrics import queue_registry
from services.queue_manager.mirror import Mirror
from services.queue_manager.planner import Planner
from services.queue_manager.recorder import Recorder
from services.queue_manager.recovery import Recovery
from services.queue_manager.rpc import SERVICE, QueueManagerService
from services.queue_manager.scaling import Scaling, Served
from services.queue_manager.scaling_options import ScalingOptions
from services.queue_manager.service import QueueManager
from services.queue_manager.sweeper import Sweeper

OFF = "off"
ROLES: tuple[Roles, ...] = get_args(Roles)
# What virtual queues may do beside waiting in order; each may be switched off.
OPERATIONS = ("solve", "pull", "evict", "swap", "balance", "move", "fair")


@dataclass(frozen=True, slots=True)
class Options:
    id: str
    settings: Settings
    tape: str  # where to record what happens; empty: nowhere
    order: str = ""  # a name of headrace.core.ordering: lines in this order, unless a planner is named, too
    planner: str = ""  # of headrace.core.planning, or off: lines; empty: off where an order is named, else headrace
    without: tuple[str, ...] = ()  # operations that are switched off: solve, pull, evict, swap, balance, move, fair
    roles: Roles = "fixed"  # of workers that prefill and decode: both, always; elastic: as the load asks
    predict: str = "auto"  # the length predictor for each request: auto is on where all of it is installed
    governor_coupling: str = "on"  # off: the governor is not listened to, and its caps are learnt from what workers do
    scaling: ScalingOptions | None = None  # None: the instances are those that somebody starts

    def __post_init__(self) -> None:
        if self.order and self.order not in ORDERS:
            raise BadSetup(f"HEADRACE_ORDER={self.order!r}: must be one of {', '.join(ORDERS)}")
        if self.planner not in ("", OFF, *PLANNERS):
            raise BadSetup(f"HEADRACE_PLANNER={self.planner!r}: must be one of {', '.join(PLANNERS)}, or {OFF}")
        unknown = sorted(set(self.without) - set(OPERATIONS))
        if unknown:
            raise BadSetup(f"HEADRACE_WITHOUT: no operation {', '.join(unknown)}; there are {', '.join(OPERATIONS)}")
        if self.roles not in ROLES:
            raise BadSetup(f"HEADRACE_ROLES={self.roles!r}: must be one of {', '.join(ROLES)}")
        if self.governor_coupling not in ("on", "off"):
            raise BadSetup(f"HEADRACE_GOVERNOR_COUPLING={self.governor_coupling!r}: must be on or off")
        if self.predict not in ("auto", "on", "off"):
            raise BadSetup(f"HEADRACE_PREDICT={self.predict!r}: must be auto, on or off")

    @property
    def planning(self) -> str:
        """The planner's name; empty for lines."""
        return "" if self.planner == OFF or (self.order and not self.planner) else self.planner or "headrace"


async def main(options: Options, lifecycle: Lifecycle) -> None:
    telemetry.set_up(options.id, options.settings)
    classes = read_classes(options.settings.classes_file)
    async with AsyncExitStack() as stack:
        face = QueueManagerService()
        inner = Inner.of(options.settings)
        stack.callback(inner.close)
        address = await _open_face(options, face, inner, stack)
        bus = await Bus.open(options.settings, options.id)
        stack.push_async_callback(bus.close)
        journal = await Journal.open(bus, options.settings)
        store = await Store.open(options.settings)
        stack.push_async_callback(store.close)
        await _open_metrics(options, face, bus, store, inner, stack)
        lost = partial(lifecycle.fail, Unavailable("another queue manager has taken over"))
        leadership = Leadership(bus, options.id, secrets.token_hex(8), lost, options.settings.journal_replicas)
        stack.push_async_callback(leadership.release)
        predictor = await start_predictor(options.predict, stack)
        lifecycle.ready(options.id, grpc=address)
        epoch = await _acquire(leadership, lifecycle.stopping)
        if epoch is None:
            return
        scaling = await _scaling(options, classes, bus, epoch, stack)
        manager = _manager(options, classes, epoch, bus, journal, store, predictor, scaling)
        face.core, face.scaling, face.switching = manager.core, scaling, manager.switching
        face.unreadable = lambda: manager.unreadable
        collect_less()
        await manager.run(lifecycle.stopping)


async def _acquire(leadership: Leadership, stopping: asyncio.Event) -> int | None:
    """The epoch; None if the process is to stop while it stands by."""
    leading, leaving = asyncio.ensure_future(leadership.acquire()), asyncio.ensure_future(stopping.wait())
    await asyncio.wait((leading, leaving), return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if leading.done():
        return leading.result()
    leading.cancel()
    await asyncio.wait((leading,))
    return None


async def _open_face(options: Options, face: QueueManagerService, inner: Inner, stack: AsyncExitStack) -> str:
    """gRPC; a standby answers too, that it is one. Returns its address."""

    def add(server: grpc.aio.Server) -> None:
        queue_pb2_grpc.add_QueueManagerServiceServicer_to_server(face, server)  # type: ignore[no-untyped-call]

    settings = options.settings
    guards = operators(settings.api_keys_file, [SERVICE])
    server = await rpc.serve(settings.grpc_addr, add, [SERVICE], guards=guards, credentials=inner.credentials)
    stack.push_async_callback(server.stop, 0.5)
    return settings.advertised(server.port)


async def _open_metrics(
    options: Options, face: QueueManagerService, bus: Bus, store: Store, inner: Inner, stack: AsyncExitStack
) -> None:
    """Of a standby, too: those of its own, and what it knows of others."""
    streams = StreamWatch(bus, (subjects.STREAM_REQUESTS, subjects.STREAM_RESULTS, subjects.STREAM_LEADER))
    watching = asyncio.get_running_loop().create_task(streams.run(), name="stream-watch")
    stack.callback(watching.cancel)
    redis = redis_reading(lambda: {(): float(store.up)} if face.core is not None else {})
    registry = queue_registry(
        lambda: face.core,
        lambda: face.scaling,
        lambda: face.unreadable() if face.core is not None else 0,
        *common_readings(bus, options.settings),
        *streams.readings(),
        redis,
    )
    scraped = await metrics.serve_metrics(options.settings.metrics_addr, registry, inner.context)
    stack.push_async_callback(scraped.stop)


def _manager(
    options: Options,
    classes: Classes,
    epoch: int,
    bus: Bus,
    journal: Journal,
    store: Store,
    predictor: PredictorThread | None,
    scaling: Scaling | None,
) -> QueueManager:
    specs = [family(model).spec for model in options.settings.served]
    prefixes = {name: tokens for spec in specs for name, tokens in spec.prefix_tokens.items()}
    off: dict[str, Any] = dict.fromkeys(options.without, False)
    config = QueueConfig(
        epoch=epoch,
        name=options.id,
        order=options.order or (ENCODER_ORDER if options.planning == "headrace" else "fcfs"),
        planner=options.planning,
        **off,
        predict_lengths=predictor is not None,
        roles=options.roles,
        classes=classes.named,
        replan_s=options.settings.replan_s,
        evict_rest_s=options.settings.evict_rest_s,
        early_rejection=options.settings.early_rejection,
        overlap=options.settings.overlap,
        prefix_tokens=prefixes,
        encoder_cache=_encoder_sharing(options.settings),
    )
    blobs = DirectoryBlobs(options.settings.data_dir)
    return QueueManager(
        config,
        bus,
        journal,
        partial(Chores, journal, store, blobs),
        Recovery(bus, store, journal, epoch),
        Mirror(bus, store),
        Sweeper(store, blobs),
        Recorder(options.tape, config),
        predictor,
        Planner if options.planning else None,
        scaling,
        governed=options.governor_coupling == "on",
    )


async def _scaling(options: Options, classes: Classes, bus: Bus, epoch: int, stack: AsyncExitStack) -> Scaling | None:
    """Raises BadSetup: on Kubernetes, without a service account."""
    scaling = options.scaling
    if scaling is None:
        return None
    specs = [family(model).spec for model in options.settings.served]
    served = Served(tuple([spec.name for spec in specs]), specs[0].modalities, classes.named)
    actuator: Actuator = Supervisor(bus, epoch)
    if scaling.way == "kubernetes":
        kubernetes = Kubernetes(Cluster.of_pod(os.environ))
        stack.push_async_callback(kubernetes.close)
        actuator = Deployments(kubernetes, {pool.name: pool.deployment_name for pool in scaling.pools})
    return Scaling(scaling, served, actuator)


def _encoder_sharing(settings: Settings) -> EncoderSharing:
    if not settings.encoder_cache_mb:
        return "off"
    return "all" if settings.encoder_cache_shared else "tenant"
