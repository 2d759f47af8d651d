"""What the tests of workers share: commands, workers in this process, a peer who plays queue manager and gateway."""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from headrace.core.commands import EncodeCommand, PrefillCommand, WorkBatch
from headrace.core.types import Key, Media, Prompt, Sampling, StageName, TokenLogprobs
from headrace.engines.base import Engine, StepResult
from headrace.engines.families import family
from headrace.engines.onnx import OnnxEngine
from headrace.engines.onnx_model import Llama, graph_folder
from headrace.engines.profile import ProfileEngine
from headrace.engines.profile_encoder import ProfileEncoder
from headrace.engines.registry import load_engine
from headrace.mesh import subjects
from headrace.mesh.blobs import DirectoryBlobs
from headrace.mesh.bus import Bus
from headrace.mesh.sensors import Sensors
from headrace.mesh.store import Store
from headrace.mesh.transfer import TensorStore
from headrace.modalities import modality
from headrace.v1 import queue_pb2
from headrace.wire.convert import logprobs_from_proto
from headrace.wire.work import work_batch_to_proto
from headrace.worker.app import Address, Carriers, Stock, Worker
from headrace.worker.devices import Devices
from headrace.worker.embed import EmbedService
from headrace.worker.kvwire import KvTravel
from headrace.worker.models import Card
from headrace.worker.outfit import Outfit
from headrace.worker.server import WorkerService, listen
from tests.engines import tiny_llama

MODEL = "profile-tiny"
PIPELINED = KvTravel(pipeline_bytes=0)  # whatever its size
ATTEMPT = 4097
SHUT_S = 0.005  # between two looks of an engine at its gate


def request_id() -> str:
    return secrets.token_hex(16)


def prefill(
    key: Key, decode_worker: str, *, max_tokens: int = 32, prompt: Prompt | str = "count to ten", **changes: object
) -> PrefillCommand:
    fields = {
        "model": MODEL,
        "prompt": Prompt(tuple(family(MODEL).encode(prompt))) if isinstance(prompt, str) else prompt,
        "sampling": Sampling(max_tokens, ignore_eos=True),
        "gateway": "gateway-0",
        "deadline_s": time.time() + 60.0,
    } | changes
    return PrefillCommand(key=key, decode_worker=decode_worker, **fields)  # type: ignore[arg-type]


def outfit(
    stages: tuple[StageName, ...],
    profile: str = "zero",
    slots: int = 64,
    blocks: int = 4096,
    model: str = MODEL,
) -> Outfit:
    kind = family(model)
    llm = stages != ("encode",)
    engine = load_engine("profile", model, threads=1, slots=slots, blocks=blocks, profile=profile) if llm else None
    encoders = {"image": ProfileEncoder(modality("image"), kind.spec.embed_width)} if "encode" in stages else {}
    return Outfit(kind.spec, kind.pieces, engine, encoders)


def card(opens: Callable[[], Outfit], model: str, **known: object) -> Card:
    fields = {"slots": 64, "blocks": 4096, "block_tokens": family(MODEL).spec.block_tokens} | known
    return Card(model, opens, **fields)  # type: ignore[arg-type]


async def at_once(call: Callable[..., Any], *arguments: Any) -> Any:
    """For Models: the engines' thread is the caller's."""
    return call(*arguments)


class Gate:
    """How many tokens each answer may still have. It stands still at a gate, so that what a test has to say comes in
    the middle of it, however busy the machine is."""

    def __init__(self) -> None:
        self._left = math.inf

    def open(self) -> None:
        self._left = math.inf

    @property
    def shut(self) -> bool:
        return self._left <= 0

    def let(self, tokens: int) -> None:
        """So many more, and then none: iterations that emit something."""
        self._left = tokens

    def through(self, step: Callable[[], StepResult]) -> StepResult:
        if self._left <= 0:
            return StepResult((), (), 0, 0, modelled_s=SHUT_S)
        result = step()
        self._left -= bool(result.emitted)
        return result


class GatedOnnx(OnnxEngine):
    """A real graph."""

    gate = Gate()

    def step(self) -> StepResult:
        return self.gate.through(super().step)


class GatedProfile(ProfileEngine):
    """Tokens in modelled time."""

    gate = Gate()

    def step(self) -> StepResult:
        return self.gate.through(super().step)


def gated_onnx(folder: Path, gate: Gate) -> GatedOnnx:
    graph = Llama(graph_folder(tiny_llama.CHECKPOINT, folder), tiny_llama.SHAPE, threads=1)
    engine = GatedOnnx(tiny_llama.SPEC, tiny_llama.CHECKPOINT, graph, slots=8, blocks=256, chunk_tokens=32)
    engine.gate = gate
    return engine


Keyed = (
    queue_pb2.TokenEnd
    | queue_pb2.Ended
    | queue_pb2.PartEncoded
    | queue_pb2.Prefilled
    | queue_pb2.Joined
    | queue_pb2.Evicted
    | queue_pb2.StageFailed
)


class Peer:
    """Plays queue manager and gateway: sends commands, remembers every event and token."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.epoch = 1
        self.tokens: dict[Key, dict[int, int]] = {}
        self.logprobs: dict[Key, dict[int, TokenLogprobs]] = {}
        self.copies = 0  # tokens that came again
        self.stream_ends: dict[Key, queue_pb2.TokenEnd] = {}
        self.gateways: dict[Key, set[str]] = {}
        self.ended: dict[Key, list[queue_pb2.Ended]] = {}
        self.prefilled: dict[Key, queue_pb2.Prefilled] = {}
        self.joined: set[Key] = set()
        self.evicted: dict[Key, list[queue_pb2.Evicted]] = {}
        self.encoded: dict[tuple[Key, int], queue_pb2.PartEncoded] = {}
        self.failed: dict[Key, queue_pb2.StageFailed] = {}
        self.beats: dict[str, list[queue_pb2.Heartbeat]] = {}
        self.dismisses = True  # whoever drains: nothing more is sent to it

    async def listen(self, *gateways: str) -> None:
        for gateway in gateways:
            await self.bus.subscribe(subjects.tokens(gateway), partial(self._on_tokens, gateway))
        await self.bus.subscribe(subjects.EVENTS, self._on_events)
        await self.bus.subscribe(subjects.HEARTBEAT, self._on_heartbeat)

    def _on_tokens(self, gateway: str, data: bytes, _headers: Mapping[str, str]) -> None:
        batch = queue_pb2.TokenBatch.FromString(data)
        for name, attempt, index, token in zip(batch.request_id, batch.attempt, batch.index, batch.token, strict=True):
            tokens = self.tokens.setdefault(Key(name, attempt), {})
            assert tokens.get(index, token) == token, f"token {index} of {name} came in two versions"
            self.copies += index in tokens
            tokens[index] = token
            self.gateways.setdefault(Key(name, attempt), set()).add(gateway)
        for row, told in logprobs_from_proto(batch.logprobs):
            key = Key(batch.request_id[row], batch.attempt[row])
            self.logprobs.setdefault(key, {})[batch.index[row]] = told
        for end in batch.ends:
            self.stream_ends[key_of(end)] = end

    def _on_events(self, data: bytes, _headers: Mapping[str, str]) -> None:
        batch = queue_pb2.EventBatch.FromString(data)
        for encoded in batch.encoded:
            self.encoded[key_of(encoded), encoded.part] = encoded
        self.prefilled |= {key_of(event): event for event in batch.prefilled}
        self.joined |= {key_of(event) for event in batch.joined}
        for out in batch.evicted:
            self.evicted.setdefault(key_of(out), []).append(out)
        for ended in batch.ended:
            self.ended.setdefault(key_of(ended), []).append(ended)
        self.failed |= {key_of(event): event for event in batch.failed}

    def _on_heartbeat(self, data: bytes, _headers: Mapping[str, str]) -> None:
        beat = queue_pb2.Heartbeat.FromString(data)
        self.beats.setdefault(beat.worker, []).append(beat)
        if beat.draining and not beat.leaving and self.dismisses:
            self.send(beat.worker, dismiss=True)

    def send(self, worker: str, **commands: object) -> None:
        told = {name: command if name in ("load", "dismiss") else (command,) for name, command in commands.items()}
        batch = WorkBatch(self.epoch, **told)  # type: ignore[arg-type]
        self.bus.send(subjects.work(worker), work_batch_to_proto(batch).SerializeToString())

    def holds(self, worker: str) -> list[queue_pb2.Hold]:
        return list(self.beats[worker][-1].holds) if worker in self.beats else []

    def text(self, key: Key) -> list[int]:
        """The stream so far; a gap is an error."""
        tokens = self.tokens.get(key, {})
        assert sorted(tokens) == list(range(len(tokens))), f"gaps in {sorted(tokens)}"
        return [tokens[index] for index in range(len(tokens))]


def key_of(message: Keyed) -> Key:
    return Key(message.key.request_id, message.key.attempt)


async def until(condition: Callable[[], object], wait_s: float = 10.0) -> None:
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110 the conditions are on other processes' messages
            await asyncio.sleep(0.005)


class Mesh:
    """Workers in this process over a real NATS and Redis."""

    def __init__(self, nats_url: str, redis_url: str, directory: Path) -> None:
        self.nats_url = nats_url
        self.redis_url = redis_url
        self.directory = directory
        self.blobs = DirectoryBlobs(directory / "blobs")
        self.workers: dict[str, Worker] = {}
        self.stop: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.tensors: dict[str, TensorStore] = {}

    def held_bytes(self, name: str) -> int:
        return self.tensors[name].held_bytes

    @asynccontextmanager
    async def worker(
        self,
        name: str,
        *stages: StageName,
        host: str = "here",
        profile: str = "zero",
        slots: int = 64,
        blocks: int = 4096,
        devices: Devices | None = None,
        engine: Engine | None = None,
        travel: KvTravel = PIPELINED,
        limit_bytes: int = 1 << 30,
        evicted_bytes: int = 1 << 29,
        encoder_cache_bytes: int = 0,
        stock: Stock | None = None,
    ) -> AsyncIterator[Worker]:
        bus = await Bus.connect(self.nats_url, name)
        store = await Store.connect(self.redis_url, f"test-{self.directory.name}")
        directory = self.directory / f"shm-{host}"
        tensors = TensorStore(directory, name, "incarnation1", host, limit_bytes=limit_bytes)
        self.tensors[name] = tensors
        service = WorkerService()
        embed = EmbedService(name, 1)
        server = await listen("127.0.0.1:0", service, embed, tensors)
        tensors.grpc_address = f"127.0.0.1:{server.port}"
        address = Address("incarnation1", host, tensors.grpc_address)
        carriers = Carriers(bus, store, self.blobs, tensors, devices or Devices(Sensors([])))
        fitted = outfit(stages, profile, slots, blocks)
        if engine is not None:
            fitted = replace(fitted, engine=engine, spec=replace(engine.spec, name=MODEL))
        worker = Worker(
            name, stages, address, carriers, stock or Stock(fitted), travel, evicted_bytes, encoder_cache_bytes
        )
        service.state, embed.stage = worker.state, worker.encode_stage
        self.workers[name], self.stop[name] = worker, asyncio.Event()
        ready = asyncio.Event()
        task = self.tasks[name] = asyncio.create_task(worker.run(self.stop[name], ready.set, drain_s=5.0))
        try:
            await asyncio.wait({task, asyncio.create_task(ready.wait())}, return_when="FIRST_COMPLETED")
            await bus.flush()  # its subscription is known to the server
            yield worker
        finally:
            worker.holds.requests.clear()  # a test that failed leaves things behind: no draining for them
            worker.holds.parts.clear()
            self.stop[name].set()
            await task
            await server.stop(0.0)
            await bus.close()
            await store.close()
            await tensors.close()


def is_empty(mesh: Mesh, name: str) -> bool:
    """It holds nothing; the engine lets go at its next turn."""
    state = mesh.workers[name].state()
    requests = state.slots_used or state.blocks_used or state.kept_requests
    return not (requests or state.handles or state.mapped_files or state.offers or mesh.held_bytes(name))


def picture(colour: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


async def command(mesh: Mesh, key: Key, part: int, data: bytes, stored: bytes | None = None) -> EncodeCommand:
    """data is what the gateway probed; stored is what lies in the blob store, where that differs."""
    sha256 = await mesh.blobs.put(key.request_id, data if stored is None else stored)
    meta = modality("image").probe(data)
    return EncodeCommand(key, part, Media(meta, sha256, modality("image").token_count(meta)), MODEL)
