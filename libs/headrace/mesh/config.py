"""Settings of a process, read from HEADRACE_* once at start. A bad value names its variable."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from headrace.control.constants import InletLaw
from headrace.mesh import sentinels
from headrace.mesh.errors import BadSetup

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """One field per variable: nats_url is HEADRACE_NATS_URL, and so on."""

    nats_url: str = "nats://127.0.0.1:4222"  # several servers of a cluster: separated by commas
    # rediss:// with TLS, unix:// for a socket, redis+sentinel://HOST:PORT,.../SERVICE for one that is watched
    redis_url: str = "redis://127.0.0.1:6379/0"
    cell: str = "local"  # in the names of keys: meshes of one Redis have different ones
    data_dir: Path = Path(".headrace/data")  # blobs
    shm_dir: Path = Path("/dev/shm/headrace")  # tensors, on a tmpfs
    shm_bytes: int = 4 << 30  # tensors that one process may hold
    host: str = platform.node()  # where a mapped file's path means something
    model: str = "smollm2-135m"  # a name, or the path of a Hugging Face directory
    # All that are served, with commas between, and `model` if that is said too; a worker loads one of them at a time.
    models: tuple[str, ...] = ()
    warm_models: int = 1  # beside the loaded one, kept in a worker's host memory
    evicted_bytes: int = 1 << 30  # of shm_bytes, for KV caches of requests that were taken out of the engine
    classes_file: str = ""  # TOML with the SLO classes; empty: interactive, batch-1, batch-2
    replan_s: float = 1.0  # of a queue manager: between two plans of the whole queue, at least
    evict_rest_s: float = 1.0  # that a request runs at least between two evictions
    overlap: bool = True  # prefill begins on a request's first media parts while others are still being encoded
    early_rejection: bool = True  # refuse at once what cannot begin before its deadline
    engine: str = "onnx"  # a name of headrace.engines.registry: onnx, torch, vllm, profile
    profile: str = ""  # of the profile engine: name or path; a file may give each model a pace of its own
    weights: str = "fp32"  # of the onnx engine; q4: the checkpoint's 4-bit blocks; int8: blocks, and int8 activations
    device: str = "auto"  # of engines and encoders; auto: a GPU where there is one that they can use
    threads: int = 0  # of the math library, in one process; 0: the engine's own choice
    slots: int = 0  # sequences that a worker holds at once; 0: 64
    blocks: int = 0  # of KV, the model's block_tokens each; 0: by the model and the engine
    chunk_tokens: int = 0  # prefilled in one iteration at most; 0: the engine's own choice
    encoder_batch: int = 8  # media parts that an encoder takes at once
    caps: tuple[str, ...] = ()  # GPUs whose power limit the governor may set: nvml:0, nvml:1, or all
    caps_by: str = "worker"  # node: an agent of the machine sets them, and workers need no right to
    plant: str = ""  # GPUs that a profile's worker plays: h100, a100x8, or off; empty: those of its profile
    plant_inlet_c: float = InletLaw().floor_c  # of the air that cools them
    modalities: tuple[str, ...] = ()  # that an encoder encodes; empty: all of its model's
    prefix_cache_mb: int = -1  # KV of prompts seen before, in an engine's memory; 0: none, -1: the engine's own choice
    encoder_cache_mb: int = 256  # embeddings of media seen before, in an encoder's memory; 0: none
    encoder_cache_shared: bool = False  # one tenant's may answer another's, who can tell by the time it takes
    otlp_endpoint: str = ""  # of an OpenTelemetry collector, http(s); empty: spans go nowhere
    trace_file: str = ""  # spans as JSON lines; "-": the console
    trace_sample: float = 0.01  # of the requests, beside those that ask to be traced
    log_level: str = "info"  # debug, info, warning or error
    drain_s: float = 29.0  # that a worker which is to stop goes on with what it has; the rest then goes on elsewhere
    transfer: str = "auto"  # of tensors; grpc: also between workers that could map one another's files
    kv_pipeline: str = "auto"  # on: KV caches travel while they are computed; off: afterwards; auto: the large ones
    kv_wire: str = "raw"  # int8: KV caches travel in a quarter of their bytes, and answers may differ
    http_addr: str = "127.0.0.1:8000"  # where a gateway listens; port 0: any free one, here and below
    grpc_addr: str = "127.0.0.1:0"  # where each process listens
    advertise_host: str = ""  # the name by which peers reach grpc_addr; empty: its host, or this machine's name
    metrics_addr: str = "127.0.0.1:0"  # Prometheus; a gateway's are on http_addr
    # Where a gateway's console asks; several queue managers (of which one leads) with commas between. Empty: nowhere.
    queue_manager_addr: tuple[str, ...] = ()
    governor_addr: str = ""  # where a gateway's console asks; empty: nowhere
    api_keys_file: str = ""  # of `headrace keys`, or lines of key and tenant; empty: open to whoever reaches it
    insecure: bool = False  # listen beyond loopback without keys and certificates: the network is nobody else's
    published: str = ""  # the gateway's: address of the machine at which its container's ports are published
    tls_cert: str = ""  # PEM files; with them everything that listens uses TLS
    tls_key: str = ""  # of tls_cert
    tls_ca: str = ""  # by which others are known
    tls_clients: str = "inner"  # who must show a certificate: callers of inner services; all: of the API, too
    nats_creds_file: str = ""  # one line, user:password
    redis_user: str = ""  # empty: the default one
    redis_password_file: str = ""  # one line
    media_urls: str = "off"  # on: the gateway fetches media by URL, never from private addresses
    media_hosts: tuple[str, ...] = ()  # from which media is fetched; *.name: those below it; empty: any
    sync_always: bool = False  # NATS is started with an fsync per append (the one-machine launcher)
    journal_bytes: int = 1 << 30  # REQUESTS; about 500,000 waiting requests of 2 KiB
    journal_age_s: float = 86400.0  # a day: longer than any class's time-out
    results_bytes: int = 1 << 30  # RESULTS: ends with all their tokens
    results_age_s: float = 600.0  # how long Attach, retries and batch readers may come back
    batch_windows: tuple[str, ...] = ()  # completion_window=class; empty: 24h=batch-2,1h=batch-1, where they are known
    batch_lines: int = 50_000  # of one batch; OpenAI's
    batch_inflight: int = 32  # lines of one batch at work at once
    batches_open: int = 16  # of one tenant
    files_bytes: int = 4 << 30  # of one tenant, written by batches too
    batch_bytes: int = 512 << 20  # BATCH_LINES: answers of batches whose files are not written yet
    batch_kept_s: float = 7 * 86_400.0  # files, and batches since their last change
    journal_replicas: int = 1  # 3 survives the loss of a machine, on a NATS cluster

    @staticmethod
    def from_env(env: Mapping[str, str]) -> "Settings":
        values: dict[str, Any] = {}
        for field in fields(Settings):
            variable = "HEADRACE_" + field.name.upper()
            text = env.get(variable, "").strip()
            if text:
                values[field.name] = _PARSERS[field.name](variable, text)
        if values.get("models") and "model" not in values:
            values["model"] = values["models"][0]
        return Settings(**values)

    @property
    def served(self) -> tuple[str, ...]:
        """Every model by name, each once, the first being the default."""
        return tuple(dict.fromkeys((self.model, *self.models)))

    def advertised(self, port: int) -> str:
        """host:port that peers are told, port being the one that grpc_addr was bound to."""
        bound = self.grpc_addr.rpartition(":")[0]
        everywhere = bound in ("0.0.0.0", "[::]", "")
        return f"{self.advertise_host or (platform.node() if everywhere else bound)}:{port}"


def _text(variable: str, text: str) -> str:
    return text


def _names(variable: str, text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _devices(variable: str, text: str) -> tuple[str, ...]:
    names = _names(variable, text)
    for name in names:
        if name != "all" and not (name.startswith("nvml:") and name.removeprefix("nvml:").isdigit()):
            raise BadSetup(f"{variable}={text!r}: must be all, or devices such as nvml:0,nvml:1")
    return names


def _path(variable: str, text: str) -> Path:
    return Path(text).expanduser()


def _choice(*choices: str) -> Callable[[str, str], str]:
    def parse(variable: str, text: str) -> str:
        if text.lower() not in choices:
            raise BadSetup(f"{variable}={text!r}: must be one of {', '.join(choices)}")
        return text.lower()

    return parse


def _number(kind: Callable[[str], T], low: T, high: T) -> Callable[[str, str], T]:
    def parse(variable: str, text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            raise BadSetup(f"{variable}={text!r}: not a number") from None
        if not low <= value <= high:  # type: ignore[operator]
            raise BadSetup(f"{variable}={text!r}: must be from {low} to {high}")
        return value

    return parse


def _flag(variable: str, text: str) -> bool:
    return _choice("on", "off", "1", "0", "true", "false", "yes", "no")(variable, text) in ("on", "1", "true", "yes")


def _url(*schemes: str) -> Callable[[str, str], str]:
    def parse(variable: str, text: str) -> str:
        for url in text.split(","):
            if not url.strip().startswith(tuple(scheme + "://" for scheme in schemes)):
                raise BadSetup(f"{variable}={text!r}: must start with {' or '.join(s + '://' for s in schemes)}")
        return text

    return parse


def _redis(variable: str, text: str) -> str:
    if not sentinels.is_watched(text):
        return _url("redis", "rediss", "unix", *sentinels.SCHEMES)(variable, text)
    try:
        sentinels.parse(text)
    except ValueError as error:
        raise BadSetup(f"{variable}: {error}") from error
    return text


def _address(variable: str, text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise BadSetup(f"{variable}={text!r}: must be host:port (port 0: any free one)")
    return text


def _addresses(variable: str, text: str) -> tuple[str, ...]:
    return tuple(_address(variable, name) for name in _names(variable, text))


def _cell(variable: str, text: str) -> str:
    if not text.replace("-", "").isalnum() or len(text) > 63:
        raise BadSetup(f"{variable}={text!r}: must be 1 to 63 letters, digits and '-'")
    return text


_COUNT = _number(int, 0, 1 << 20)
_BYTES = _number(int, 1 << 16, 1 << 44)
_AGE_S = _number(float, 1.0, 31e6)

_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "nats_url": _url("nats", "tls"),
    "redis_url": _redis,
    "cell": _cell,
    "data_dir": _path,
    "shm_dir": _path,
    "shm_bytes": _BYTES,
    "host": _text,
    "model": _text,
    "models": _names,
    "warm_models": _number(int, 0, 64),
    "evicted_bytes": _number(int, 0, 1 << 44),
    "classes_file": _text,
    "overlap": _flag,
    "early_rejection": _flag,
    "engine": _text,
    "profile": _text,
    "weights": _choice("fp32", "q4", "int8"),
    "device": _choice("cpu", "cuda", "auto"),
    "threads": _COUNT,
    "replan_s": _number(float, 0.05, 600.0),
    "evict_rest_s": _number(float, 0.0, 600.0),
    "slots": _COUNT,
    "blocks": _COUNT,
    "chunk_tokens": _COUNT,
    "encoder_batch": _number(int, 1, 1024),
    "caps": _devices,
    "caps_by": _choice("worker", "node"),
    "plant": _text,
    "plant_inlet_c": _number(float, -20.0, 80.0),
    "modalities": _names,
    "prefix_cache_mb": _number(int, -1, 1 << 20),
    "encoder_cache_mb": _number(int, 0, 1 << 20),
    "encoder_cache_shared": _flag,
    "otlp_endpoint": _url("http", "https"),
    "trace_file": _text,
    "trace_sample": _number(float, 0.0, 1.0),
    "log_level": _choice("debug", "info", "warning", "error"),
    "drain_s": _number(float, 0.0, 29.0),
    "transfer": _choice("auto", "grpc"),
    "kv_pipeline": _choice("on", "off", "auto"),
    "kv_wire": _choice("raw", "int8"),
    "http_addr": _address,
    "grpc_addr": _address,
    "advertise_host": _text,
    "metrics_addr": _address,
    "queue_manager_addr": _addresses,
    "governor_addr": _address,
    "api_keys_file": _text,
    "insecure": _flag,
    "published": _text,
    "tls_cert": _text,
    "tls_key": _text,
    "tls_ca": _text,
    "tls_clients": _choice("inner", "all"),
    "nats_creds_file": _text,
    "redis_user": _text,
    "redis_password_file": _text,
    "media_urls": _choice("off", "on"),
    "media_hosts": _names,
    "sync_always": _flag,
    "journal_bytes": _BYTES,
    "journal_age_s": _AGE_S,
    "results_bytes": _BYTES,
    "results_age_s": _AGE_S,
    "batch_windows": _names,
    "batch_lines": _number(int, 1, 1_000_000),
    "batch_inflight": _number(int, 1, 4096),
    "batches_open": _number(int, 1, 4096),
    "files_bytes": _BYTES,
    "batch_bytes": _BYTES,
    "batch_kept_s": _AGE_S,
    "journal_replicas": _number(int, 1, 5),
}
