"""Model families: the facts, tokenizer and chat template of each model, without anything that runs it.

A family turns chat messages into a Prompt and tokens into bytes; engines ask its module for weights.
Importing this imports neither onnxruntime nor torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from headrace.core.errors import ModelNotFound, Unavailable
from headrace.core.types import Media, Prompt
from headrace.engines.base import ModelSpec
from headrace.modalities import Modality

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from headrace.engines.families.llama import Checkpoint


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class MediaPart:
    index: int  # into the request's media


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str
    parameters: str  # JSON schema of its arguments, an object


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str  # a JSON object


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: str  # system, user, assistant, tool
    parts: tuple[TextPart | MediaPart, ...]
    calls: tuple[ToolCall, ...] = ()  # of the assistant's
    answers: str = ""  # of a tool's: the id of the call


class Family(Protocol):
    @property
    def spec(self) -> ModelSpec: ...
    @property
    def tokenizer(self) -> "Tokenizer": ...
    @property
    def pieces(self) -> list[bytes]:
        """Token id -> the bytes it adds to the output; special tokens add none."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; the names of special tokens in it become those tokens."""
        ...

    def render(self, messages: Sequence[ChatMessage], media: Sequence[Media], tools: Sequence[Tool] = ()) -> Prompt:
        """The chat template: ready for the assistant's turn. Every media part must be used exactly once.

        Models call tools as headrace.engines.toolcalls has it; a family whose template has no place for tools renders
        what tool_prompt.plainly makes of the conversation.
        """
        ...

    def continuing(self, text: str) -> Prompt:
        """A text without a template, to be gone on with: what the tokenizer itself puts before it comes along."""
        ...

    def modality(self, name: str) -> Modality:
        """How this model counts and encodes a modality of spec.modalities."""
        ...


# model name -> module with `load() -> Family` and, where it has weights, `checkpoint() -> Checkpoint`
MODULES = {
    "smollm2-135m": "headrace.engines.families.smollm2",
    "profile-tiny": "headrace.engines.families.profile_tiny",
}
# profile-tiny-<word> is profile-tiny under another name, with answers of its own: a mesh of several models on a laptop.
_NAMESAKE = re.compile(r"(profile-tiny)-[a-z0-9]+")


@lru_cache(maxsize=8)
def family(model: str) -> Family:
    """The family of a model, by its name or the path of a Hugging Face directory; loads its tokenizer, not its weights.

    Raises:
        ModelNotFound: no such model.
        Unavailable: a file of the directory is missing, or its architecture is not known.
    """
    if is_directory(model):
        from headrace.engines.families.directory import open_family

        return open_family(Path(model))
    module = _module(model)
    loaded: Family = module.load() if model in MODULES else module.named(model)
    return loaded


def is_directory(model: str) -> bool:
    """Whether the model is a path: names have no slash."""
    return "/" in model


def checkpoint(model: str) -> "Checkpoint":
    """The weights of a model, not yet read.

    Raises:
        ModelNotFound: no such model.
        Unavailable: the model has no weights, or their package is not installed.
    """
    module = _module(model)
    if not hasattr(module, "checkpoint"):
        raise Unavailable(f"the model {model} has no weights: run it with the profile engine")
    found: Checkpoint = module.checkpoint()
    return found


def _module(model: str) -> ModuleType:
    namesake = _NAMESAKE.fullmatch(model)
    original = namesake.group(1) if namesake else model
    if original not in MODULES:
        raise ModelNotFound(f"unknown model {model!r}; known: {', '.join(MODULES)}", field="model")
    return import_module(MODULES[original])
