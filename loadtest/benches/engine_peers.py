"""The engines that `headrace bench engine` measures, ours and others: how long do they take for these prompts?"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from headrace.core.types import Key, Sampling
from headrace.engines.artifacts import build_once, cache_root
from headrace.engines.base import Engine, SequenceInput
from headrace.engines.families import checkpoint, family
from headrace.engines.families.llama import Checkpoint
from headrace.engines.registry import load_engine

SLOTS = 16
BLOCKS = 1024  # 16 contexts of 1,024 tokens
WEIGHTS_FILE = "model.safetensors"
_PEER = Path(__file__).with_name("peer_engine.py")


@dataclass(slots=True)
class Run:
    seconds: float
    tokens: list[list[int]]
    decode_steps_s: list[float] = field(default_factory=list)  # steps of all sequences without any prefill


class Contender(Protocol):
    """An engine with the model loaded."""

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Run: ...

    def close(self) -> None: ...


class Ours:
    """An engine of this repository with its scheduler: add, step, remove."""

    def __init__(self, engine: str, model: str, threads: int, weights: str) -> None:
        self._engine: Engine = load_engine(
            engine, model, threads=threads, slots=SLOTS, blocks=BLOCKS, weights=weights, prefix_cache_mb=0
        )
        self._runs = 0

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Run:
        self._runs += 1
        keys = [Key(f"{self._runs}-{row}", 1) for row in range(len(prompts))]
        out: dict[Key, list[int]] = {key: [] for key in keys}
        sampling = Sampling(max_tokens=new_tokens + 1, ignore_eos=True)  # one more than is taken: removing is ours
        steps, started = [], perf_counter()
        for key, prompt in zip(keys, prompts, strict=True):
            self._engine.add(SequenceInput(key, tuple(prompt), len(prompt), (), (), "", sampling))
        while self._engine.has_work():
            before = perf_counter()
            result = self._engine.step()
            if result.prefill_tokens == 0 and result.decode_tokens == len(prompts):
                steps.append(perf_counter() - before)
            for token in result.emitted:
                out[token.key].append(token.token)
                if len(out[token.key]) == new_tokens:
                    self._engine.remove(token.key)
        return Run(perf_counter() - started, list(out.values()), steps)

    def close(self) -> None:
        pass


class Peer:
    """Another engine, in its own process and perhaps of another interpreter.

    It is stopped while others are measured: idle engines may poll, and these share a few cores.
    """

    def __init__(self, name: str, interpreter: str, directory: Path, threads: int) -> None:
        self._name = name
        command = [interpreter, str(_PEER), name, str(directory), str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # with whatever processes it starts
        )
        self._read()
        self._signal(signal.SIGSTOP)

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Run:
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "new_tokens": new_tokens}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self._signal(signal.SIGSTOP)
        return Run(answer["seconds"], answer["tokens"])

    def close(self) -> None:
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def contenders(
    model: str, threads: int, weights: dict[str, str], directory: Path, vllm_python: str
) -> dict[str, Contender]:
    """Every engine that is at hand, by the name of its figures; weights: of ours, by name."""
    found: dict[str, Contender] = {name: Ours("onnx", model, threads, kind) for name, kind in weights.items()}
    found["transformers"] = Peer("transformers", sys.executable, directory, threads)
    if vllm_python:
        found["vllm"] = Peer("vllm", vllm_python, directory, threads)
    return found


def hugging_face_form(model: str) -> Path:
    """A directory with the same weights, in float32, for engines that read those; made once."""
    source = checkpoint(model)
    digest = source.fingerprint.replace(" ", "-").replace("/", "-")
    return build_once(cache_root() / f"{model}-hf-{digest}", lambda draft: _write(source, model, draft))


def _write(source: Checkpoint, model: str, draft: Path) -> None:
    from safetensors.numpy import save_file

    weights = source.load_weights()
    save_file(
        {name: np.ascontiguousarray(values) for name, values in weights.items()},
        draft / WEIGHTS_FILE,
        {"format": "pt"},
    )
    (draft / "config.json").write_text(json.dumps(_config(source, model, weights)))


def _config(source: Checkpoint, model: str, weights: dict[str, Any]) -> dict[str, Any]:
    shape, spec = source.shape, family(model).spec
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": len(weights["model.layers.0.mlp.up_proj.weight"]),
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.query_heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "max_position_embeddings": shape.context_tokens,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_base,
        "vocab_size": spec.vocab_size,
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": 1,
        "eos_token_id": min(spec.eos_ids),
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }
