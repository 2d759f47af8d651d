"""A worker process: settings, engine, encoders, carriers; the same for all three services but for their stages."""

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

from headrace.core.cost import pace_of
from headrace.core.instance import Pace
from headrace.core.stages.kv import blocks_for
from headrace.core.types import Key, Sampling, StageName
from headrace.engines.base import Engine, ModelSpec, SequenceInput
from headrace.engines.families import Family, family
from headrace.engines.kvcodec import NotPackable, packed_bytes
from headrace.engines.profile_encoder import ProfileEncoder
from headrace.engines.registry import EngineConfigError, check_stages, hands_over, load_engine, parks
from headrace.engines.runtime import chosen_device
from headrace.mesh import metrics, telemetry
from headrace.mesh.binding import Inner
from headrace.mesh.blobs import DirectoryBlobs
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.guard import operators
from headrace.mesh.health import common_readings
from headrace.mesh.lifecycle import DRAIN_WAIT_S, EXIT_BAD_SETUP, Lifecycle, collect_less, run
from headrace.mesh.store import Store
from headrace.mesh.subjects import check_process_id
from headrace.mesh.transfer import TensorStore
from headrace.modalities import Encoder
from headrace.profiles import EngineProfile, ProfileError, engine_profile
from headrace.worker.app import Address, Carriers, Stock, Worker
from headrace.worker.embed import EmbedService
from headrace.worker.hardware import open_devices
from headrace.worker.kvwire import KvTravel
from headrace.worker.models import Card
from headrace.worker.outfit import Outfit
from headrace.worker.readings import worker_registry
from headrace.worker.server import SERVICE, WorkerService, listen

STAGES: tuple[StageName, ...] = get_args(StageName)
SLOTS = 64  # of an engine that was not told: what a CPU batches well, and a GPU's profile too
# The KV cache of an engine that was not told its blocks: memory that a small machine has for each of three workers,
# but room for one whole context in any case; where KV takes no memory, as many whole contexts.
KV_BYTES = 2 << 30
CONTEXTS = 16
# Shares of the settings that a flag may set: a launcher starts many workers with one environment.
FLAGS = ("model", "engine", "profile", "weights", "device", "grpc_addr")
NUMBERS = ("threads", "slots", "blocks", "chunk_tokens", "encoder_batch")
LISTS = ("models", "modalities")
# Pipelining costs a message and a second look at the decode worker: below this a transfer takes no longer than that.
PIPELINE_BYTES = 4 << 20
# Of a graph that only prefills: two thirds of its KV cache have left when its last layers begin. SmolLM2's prefill
# takes as long in three as in one.
SEGMENTS = 3
PACE_CONTEXT_TOKENS = 1000  # of a usual request: what a profile's pace is told for
_SMALLEST = SequenceInput(Key("", 0), (0,), 1, (), (), "", Sampling(1))  # what a KV cache of one token looks like
DRAIN_S = DRAIN_WAIT_S - 1.0  # the rest is for saying goodbye


@dataclass(frozen=True, slots=True)
class Options:
    id: str
    stages: tuple[StageName, ...]
    settings: Settings


def parse(arguments: Sequence[str], env: Mapping[str, str], default: StageName) -> Options:
    """Raises BadSetup; argparse itself ends the process on an unknown flag."""
    parser = argparse.ArgumentParser(description=f"A Headrace worker; its stages are {default} unless told otherwise.")
    parser.add_argument("--id", required=True, help="process id, such as prefill-0")
    parser.add_argument("--stages", default=default, help="any of encode, prefill, decode, with commas between")
    for name in FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"instead of HEADRACE_{name.upper()}")
    for name in NUMBERS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"instead of HEADRACE_{name.upper()}")
    for name in LISTS:
        parser.add_argument(f"--{name}", help=f"instead of HEADRACE_{name.upper()}, with commas between")
    given = vars(parser.parse_args(arguments))
    lists = {f"HEADRACE_{name.upper()}": given[name] for name in LISTS if given[name] is not None}
    settings = Settings.from_env({**env, **lists})
    flags = {name: given[name] for name in (*FLAGS, *NUMBERS) if given[name] is not None}
    try:
        return Options(check_process_id(given["id"]), _stages(given["stages"]), replace(settings, **flags))
    except ValueError as error:
        raise BadSetup(str(error)) from error


def _stages(text: str) -> tuple[StageName, ...]:
    """In the order of a request's way, each once."""
    names = {name.strip() for name in text.split(",")}
    unknown = names - set(STAGES)
    if unknown:
        raise BadSetup(f"--stages {text!r}: unknown {sorted(unknown)}; there are {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in names)


def load_stock(options: Options) -> Stock:
    """The first model, loaded, and what is known of the others. Takes seconds with a real model.

    Raises:
        BadSetup: no such engine, profile or size; the engine cannot run these stages, or not more than one model.
    """
    settings, began_s = options.settings, time.monotonic()
    if len(settings.served) > 1 and not parks(settings.engine):
        raise BadSetup(f"HEADRACE_MODELS: a worker of the {settings.engine} engine serves one model; use torch")
    first = load_outfit(options, settings.model)
    took_s = time.monotonic() - began_s
    if first.engine is None or len(settings.served) == 1:
        return Stock(first)
    cards = tuple([_card(options, word) for word in settings.served])
    if len({card.name for card in cards}) < len(cards):
        raise BadSetup(f"HEADRACE_MODELS: two of {', '.join(settings.served)} have the same name")
    return Stock(first, cards, settings.warm_models, took_s)


def _card(options: Options, model: str) -> Card:
    settings, spec = options.settings, family(model).spec
    profile = _profile(settings, spec.name)
    return Card(
        spec.name,
        partial(load_outfit, options, model),
        _slots(settings),
        _blocks(settings, spec),
        spec.block_tokens,
        _pace(settings, profile),
        {False: profile.load_cold_s, True: profile.load_warm_s} if profile is not None else None,
    )


def load_outfit(options: Options, model: str) -> Outfit:
    """What the stages run on.

    Raises:
        BadSetup: no such engine, profile or size; the engine cannot run these stages.
    """
    settings, kind = options.settings, family(model)
    runs_llm = options.stages != ("encode",)
    engine = _engine(options, model, kind.spec) if runs_llm else None
    encoders = _encoders(settings, kind) if "encode" in options.stages else {}
    leaves = hands_over(settings.engine)
    kv_travel(settings, engine if leaves else None)
    profile = _profile(settings, kind.spec.name)
    pace = _pace(settings, profile) if runs_llm else Pace()
    encode_token_s = profile.encode_token_s if profile is not None else 0.0
    return Outfit(kind.spec, kind.pieces, engine, encoders, leaves, pace, encode_token_s)


def _profile(settings: Settings, model: str = "") -> EngineProfile | None:
    """model: by its name, one that may have a pace of its own; empty: what is the worker's, whatever it serves.

    Raises:
        BadSetup: no such profile, or its content is wrong.
    """
    if settings.engine != "profile":
        return None
    try:
        return engine_profile(settings.profile or "zero").of(model)
    except ProfileError as error:
        raise BadSetup(str(error)) from error


def _pace(settings: Settings, profile: EngineProfile | None) -> Pace:
    return pace_of(profile.cost, _slots(settings), PACE_CONTEXT_TOKENS) if profile is not None else Pace()


def _slots(settings: Settings) -> int:
    return settings.slots or SLOTS


def _blocks(settings: Settings, spec: ModelSpec) -> int:
    return settings.blocks or default_blocks(settings.engine, spec)


def _engine(options: Options, model: str, spec: ModelSpec) -> Engine:
    settings = options.settings
    try:
        check_stages(settings.engine, model, options.stages)
        return load_engine(
            settings.engine,
            model,
            threads=settings.threads or max(1, (os.cpu_count() or 1) // 2),
            slots=_slots(settings),
            blocks=_blocks(settings, spec),
            chunk_tokens=settings.chunk_tokens,
            profile=settings.profile or "zero",
            prefix_cache_mb=settings.prefix_cache_mb,
            weights=settings.weights,
            device=settings.device,
            segments=1 if settings.kv_pipeline == "off" or "decode" in options.stages else SEGMENTS,
        )
    except EngineConfigError as error:
        raise BadSetup(str(error)) from error


def kv_travel(settings: Settings, engine: Engine | None) -> KvTravel:
    """Raises BadSetup: this engine's KV cache has no rows to pack."""
    packed = settings.kv_wire == "int8"
    if packed and engine is not None:
        try:
            packed_bytes(engine.prefilled_manifest(_SMALLEST))
        except NotPackable as error:
            raise BadSetup(f"HEADRACE_KV_WIRE=int8 cannot serve the {settings.engine} engine: {error}") from error
    return KvTravel({"off": None, "on": 0, "auto": PIPELINE_BYTES}[settings.kv_pipeline], packed)


def default_blocks(engine: str, spec: ModelSpec) -> int:
    context_blocks = blocks_for(spec.context_tokens, spec.block_tokens)
    if engine == "profile" or not spec.kv_bytes_per_token:
        return CONTEXTS * context_blocks
    return max(context_blocks, KV_BYTES // (spec.kv_bytes_per_token * spec.block_tokens))


def _encoders(settings: Settings, kind: Family) -> dict[str, Encoder]:
    """Raises BadSetup: a modality that the model has not."""
    spec = kind.spec
    for name in settings.modalities:
        if name not in spec.modalities:
            known = ", ".join(spec.modalities) or "none"
            raise BadSetup(f"HEADRACE_MODALITIES: {spec.name} has no modality {name!r}; it has {known}")
    names = settings.modalities or spec.modalities
    if settings.engine == "profile":
        return {name: ProfileEncoder(kind.modality(name), spec.embed_width) for name in names}
    threads, device = settings.threads or 1, settings.device
    return {name: kind.modality(name).load(threads, chosen_device(device)) for name in names}


async def serve(options: Options, lifecycle: Lifecycle) -> None:
    """The process from its first connection to its last message. Heartbeats begin once the engine is ready."""
    settings, incarnation = options.settings, secrets.token_hex(8)
    telemetry.set_up(options.id, settings)
    async with AsyncExitStack() as stack:
        inner = Inner.of(settings)
        stack.callback(inner.close)
        carriers = await _connect(options, incarnation, stack)
        service = WorkerService()
        guards = operators(settings.api_keys_file, [SERVICE])
        embed = EmbedService(options.id, settings.threads or 1)
        server = await listen(settings.grpc_addr, service, embed, carriers.tensors, guards, inner.credentials)
        stack.push_async_callback(server.stop, 1.0)
        address = Address(incarnation, settings.host, settings.advertised(server.port))
        carriers.tensors.grpc_address = address.grpc_address
        stock = await asyncio.to_thread(load_stock, options)
        travel = kv_travel(settings, stock.first.engine if stock.first.hands_over else None)
        worker = Worker(
            options.id,
            options.stages,
            address,
            carriers,
            stock,
            travel,
            settings.evicted_bytes,
            encoder_cache_bytes=settings.encoder_cache_mb << 20,
            encoder_batch=settings.encoder_batch,
        )
        service.state = worker.state
        if worker.encode_stage is not None:
            embed.stage = worker.encode_stage
            stack.push_async_callback(embed.advertise(carriers.bus, address.grpc_address, lifecycle.stopping))
        readings = common_readings(carriers.bus, settings)
        registry = worker_registry(options.id, worker.state, carriers.devices.account, *readings)
        scraped = await metrics.serve_metrics(settings.metrics_addr, registry, inner.context)
        stack.push_async_callback(scraped.stop)
        await server.set_serving(True)
        collect_less()
        ready = partial(lifecycle.ready, options.id, stages=options.stages, grpc=address.grpc_address)
        await worker.run(lifecycle.stopping, ready, min(settings.drain_s, DRAIN_S))


async def _connect(options: Options, incarnation: str, stack: AsyncExitStack) -> Carriers:
    settings = options.settings
    bus = await Bus.open(settings, options.id)
    stack.push_async_callback(bus.close)
    store = await Store.open(settings)
    stack.push_async_callback(store.close)
    tensors = TensorStore.open(settings, options.id, incarnation)
    stack.push_async_callback(tensors.close)
    tensors.sweep()
    devices = open_devices(options.id, settings, _profile(settings), os.environ)
    return Carriers(bus, store, DirectoryBlobs(settings.data_dir), tensors, devices)


def main(default: StageName) -> None:
    """The three services differ by their default stage alone."""
    try:
        options = parse(sys.argv[1:], os.environ, default)
    except BadSetup as error:
        print(f"headrace: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_SETUP)
    run(partial(serve, options))
