"""A checkpoint as the mesh serves it, beside its reference: prompts and encoders, engines, transformers' generate.

Requests run through the torch engine: together, arriving at different times, handed from one engine to another.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.types import Key, Media, Prompt, Sampling
from headrace.engines.base import Embeddings, Engine, SequenceInput
from headrace.engines.families import ChatMessage, Family, MediaPart, TextPart
from headrace.engines.families.directory import export_encoders, open_family
from headrace.modalities import Encoder, Modality
from tests.families import reference

NEW_TOKENS = 12
# What gateway and encoder do with one media part, in a process where importing torch or transformers fails.
WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "safetensors"):
    sys.modules[name] = None
import numpy as np
from headrace.core.types import Media
from headrace.engines.families import ChatMessage, MediaPart, TextPart, family
path, modality, file, rows = sys.argv[1:]
kind = family(path)
media = kind.modality(modality)
data = open(file, "rb").read()
meta = media.probe(data)
count = media.token_count(meta)
(span,) = kind.render([ChatMessage("user", (MediaPart(0), TextPart("hello")))], [Media(meta, "", count)]).spans
encoder = media.load(1)
found = encoder.encode([encoder.preprocess(data, meta)])[0]
assert found.shape == (span.embedding_rows, kind.spec.embed_width) == (count, kind.spec.embed_width)
np.save(rows, found)
"""
Part = str | bytes
Asked = tuple[Part, ...]  # the user's turn: texts, and media as files


@dataclass(frozen=True)
class Served:
    """modality: the one that the family's media parts are of."""

    path: Path
    modality_name: str

    @cached_property
    def family(self) -> Family:
        return open_family(self.path)

    @property
    def modality(self) -> Modality:
        return self.family.modality(self.modality_name)

    @cached_property
    def encoder(self) -> Encoder:
        return self.modality.load(1)

    def media(self, asked: Asked) -> tuple[Media, ...]:
        metas = [self.modality.probe(part) for part in asked if isinstance(part, bytes)]
        return tuple(Media(meta, f"{number}", self.modality.token_count(meta)) for number, meta in enumerate(metas))

    def prompt(self, asked: Asked) -> Prompt:
        counted = iter(range(len(asked)))
        parts = [TextPart(part) if isinstance(part, str) else MediaPart(next(counted)) for part in asked]
        return self.family.render([ChatMessage("user", tuple(parts))], self.media(asked))

    def embeddings(self, asked: Asked) -> tuple[Embeddings, ...]:
        files = [part for part in asked if isinstance(part, bytes)]
        inputs = [
            self.encoder.preprocess(data, media.meta) for data, media in zip(files, self.media(asked), strict=True)
        ]
        return tuple(self.encoder.encode(inputs))

    def sequence(self, number: int, asked: Asked, new_tokens: int = NEW_TOKENS) -> SequenceInput:
        prompt = self.prompt(asked)
        sampling = Sampling(max_tokens=new_tokens, ignore_eos=True)
        return SequenceInput(
            key=Key(f"{number}", 1),
            tokens=prompt.tokens,
            prompt_len=len(prompt.tokens),
            spans=prompt.spans,
            embeddings=self.embeddings(asked),
            prefix="",
            sampling=sampling,
        )

    def engine(self, chunk_tokens: int = 32) -> Engine:
        """Chunks are shorter than most prompts: prefill takes several steps."""
        from headrace.engines.torch_load import load

        env = {"HEADRACE_TORCH_DEVICE": "cpu", "HEADRACE_TORCH_DTYPE": "float32"}
        return load(
            self.family.spec, str(self.path), threads=1, slots=8, blocks=200, chunk_tokens=chunk_tokens, env=env
        )


def serve(path: Path, modality: str, cache: Path) -> Served:
    """The checkpoint's encoders are exported into the cache, which HEADRACE_CACHE_DIR must name."""
    export_encoders(path, cache)
    return Served(path, modality)


def rows_without_torch(served: Served, data: bytes, folder: Path) -> NDArray[np.float32]:
    """A part's embeddings as another process computes them."""
    (folder / "part").write_bytes(data)
    arguments = [str(served.path), served.modality_name, str(folder / "part"), str(folder / "rows.npy")]
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rows: NDArray[np.float32] = np.load(folder / "rows.npy")
    return rows


def run(engine: Engine, sequences: Sequence[SequenceInput], every: int = 2) -> list[list[int]]:
    """Output tokens of each; one more sequence arrives every so many steps."""
    waiting, told = list(sequences), {sequence.key: list[int]() for sequence in sequences}
    left = {sequence.key: sequence.sampling.max_tokens for sequence in sequences}
    steps = 0
    while waiting or engine.has_work():
        if waiting and steps % every == 0:
            engine.add(waiting.pop(0))
        steps += 1
        for emitted in engine.step().emitted:
            told[emitted.key].append(emitted.token)
            if len(told[emitted.key]) == left[emitted.key]:
                engine.remove(emitted.key)
    assert engine.blocks_used() == engine.slots_used() == 0
    return list(told.values())


def handed_over(first: Engine, second: Engine, sequence: SequenceInput, after: int) -> list[int]:
    """Output tokens where another engine goes on after so many, from the KV alone."""
    told: list[int] = []
    first.add(sequence)
    while len(told) < after:
        told += [emitted.token for emitted in first.step().emitted]
    manifest = first.kv_manifest(sequence.key)
    image = bytearray(manifest.size_bytes)
    first.export_kv(sequence.key, memoryview(image))
    first.remove(sequence.key)
    moved = replace(sequence, tokens=(*sequence.tokens, *told), embeddings=())
    second.import_kv(moved, manifest, memoryview(image))
    while len(told) < sequence.sampling.max_tokens:
        told += [emitted.token for emitted in second.step().emitted]
    second.remove(sequence.key)
    return told


def conversation(asked: Asked, modality: str) -> list[dict[str, Any]]:
    """The same turn in the words of transformers."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": modality} for part in asked]
    return [{"role": "user", "content": content}]


def inputs(processor: Any, asked: Asked) -> Any:
    """What the reference's processor makes of a turn with pictures."""
    files = [part for part in asked if isinstance(part, bytes)]
    return reference.inputs(processor, conversation(asked, "image"), files)


@dataclass(frozen=True)
class Told:
    """Greedy tokens of transformers' generate, whatever they are (no token ends it), and their log-probabilities."""

    tokens: list[int]
    logprobs: NDArray[np.float32]


def generated(network: Any, given: Any, new_tokens: int = NEW_TOKENS) -> Told:
    import torch

    network.generation_config.eos_token_id = None
    with torch.no_grad():
        out = network.generate(
            **given, do_sample=False, max_new_tokens=new_tokens, output_logits=True, return_dict_in_generate=True
        )
    tokens: list[int] = out.sequences[0, given["input_ids"].shape[1] :].tolist()
    logprobs = torch.log_softmax(torch.cat(out.logits), -1)[torch.arange(len(tokens)), tokens]
    return Told(tokens, np.asarray(logprobs.numpy(), np.float32))


def logprobs(engine: Engine, sequence: SequenceInput) -> NDArray[np.float32]:
    """Log-probabilities of the greedy output tokens."""
    engine.add(replace(sequence, sampling=replace(sequence.sampling, logprobs=0)))
    found: list[float] = []
    while len(found) < sequence.sampling.max_tokens:
        found += [emitted.logprobs.logprob for emitted in engine.step().emitted if emitted.logprobs is not None]
    engine.remove(sequence.key)
    return np.array(found, np.float32)
