"""Hugging Face directories: which architecture a checkpoint has, and the module that knows it.

One file per family; a file offers three functions (see Architecture). Only `export` may import torch.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from headrace.core.errors import Unavailable
from headrace.engines.artifacts import build_once, cache_root
from headrace.engines.families import Family
from headrace.engines.families.decoder import Decoder

# model_type of config.json -> module
ARCHITECTURES = {
    "llama": "headrace.engines.families.llama_text",
    "mistral": "headrace.engines.families.llama_text",
    "qwen2": "headrace.engines.families.llama_text",
    "qwen3": "headrace.engines.families.llama_text",
    "llava": "headrace.engines.families.llava",
    "llava_onevision": "headrace.engines.families.llava_onevision",
    "internvl": "headrace.engines.families.internvl",
    "qwen2_5_vl": "headrace.engines.families.qwen2_5_vl",
    "qwen3_vl": "headrace.engines.families.qwen3_vl",
    "mllama": "headrace.engines.families.mllama",
    "qwen2_audio": "headrace.engines.families.qwen2_audio",
}


EXPORT_FORMAT = 1  # another one whenever exported graphs change their inputs or outputs


@dataclass(frozen=True)
class Directory:
    """A checkpoint on disk: config.json, *.safetensors, tokenizer.json, a chat template, preprocessor_config.json."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.json("config.json")

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the configuration or a weight file does."""
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        for file in sorted(self.path.glob("*.safetensors")):
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode())
        return digest.hexdigest()[:16]

    @property
    def encoders(self) -> Path:
        """Where `headrace model export` writes this checkpoint's encoders."""
        return self.encoders_in(cache_root())

    def encoders_in(self, root: Path) -> Path:
        return root / f"{self.name}-{self.fingerprint}-{EXPORT_FORMAT}"

    def graph(self, name: str) -> Path:
        """An exported encoder.

        Raises:
            Unavailable: it has not been exported.
        """
        path = self.encoders / name
        if not path.is_file():
            raise Unavailable(f"{self.name} has no exported encoder: run `headrace model export {self.path}`")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the directory.

        Raises:
            Unavailable: it is not there, or it is not a JSON object.
        """
        try:
            value = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.path / name} cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise Unavailable(f"{self.path / name} is not a JSON object")
        return value


class Architecture(Protocol):
    """What a family's module offers."""

    def family(self, directory: Directory) -> Family: ...

    def decoder(self, directory: Directory) -> Decoder: ...

    def export(self, directory: Directory, out: Path) -> None:
        """Write the encoders of all modalities as ONNX files, and the small arrays beside them. Needs torch."""
        ...


def open_family(path: Path) -> Family:
    directory, architecture = _open(path)
    return architecture.family(directory)


def open_decoder(path: Path) -> Decoder:
    directory, architecture = _open(path)
    return architecture.decoder(directory)


def export_encoders(path: Path, root: Path) -> Path:
    """The folder with the checkpoint's encoders and a manifest, written if it is not there.

    Raises:
        Unavailable: a file is missing, the architecture is not known, or torch is not installed.
    """
    directory, architecture = _open(path)

    def build(out: Path) -> None:
        if not any(directory.path.glob("*.safetensors")):
            raise Unavailable(f"{directory.path} holds no *.safetensors: other weight formats are not read")
        try:
            architecture.export(directory, out)
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "transformers", "safetensors", "onnxscript"):
                raise
            raise Unavailable(f"exporting needs {error.name}: pip install 'headrace[torch]'") from error
        (out / "manifest.json").write_text(json.dumps(_manifest(directory, out), indent=1))

    return build_once(directory.encoders_in(root), build)


def _manifest(directory: Directory, out: Path) -> dict[str, Any]:
    return {
        "model": directory.name,
        "architecture": directory.config["model_type"],
        "fingerprint": directory.fingerprint,
        "format": EXPORT_FORMAT,
        "files": {file.name: file.stat().st_size for file in sorted(out.iterdir())},
    }


@lru_cache(maxsize=8)
def _open(path: Path) -> tuple[Directory, Architecture]:
    directory = Directory(path.resolve())
    kind = directory.config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise Unavailable(f"{directory.path}: model_type {kind!r} has no family here; there are {known}")
    architecture: Any = import_module(ARCHITECTURES[kind])
    return directory, architecture
