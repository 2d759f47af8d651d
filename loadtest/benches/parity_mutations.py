"""Faults that `headrace bench parity --mutate` puts in on purpose: what it says of each must not be 100 %."""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from loadtest.benches.parity_questions import Question

_LAYER = re.compile(r"(.*\blayers\.)(\d+)(\..*)")
_TOWERS = ("vision", "visual", "audio_tower")


@dataclass(frozen=True, slots=True)
class Mutation:
    """The base changes nothing: each fault overrides the one thing that it breaks."""

    name: str = ""

    def of_checkpoint(self, directory: Path) -> Path:
        """The directory that the mesh serves in place of the true one."""
        return directory

    def of_question(self, question: Question) -> Question:
        return question

    def environment(self, folder: Path) -> dict[str, str]:
        """For every service of the mesh."""
        return {}


class SwappedLayers(Mutation):
    """The first two layers of the language model that are alike change places."""

    def of_checkpoint(self, directory: Path) -> Path:
        from safetensors.numpy import load_file, save_file

        mutant = directory.with_name(f"{directory.name}-swapped")
        shutil.copytree(directory, mutant)
        path = mutant / "model.safetensors"
        weights = load_file(path)
        first, second = _alike(weights)
        swap = {first: second, second: first}
        save_file({_renumbered(name, swap): array for name, array in weights.items()}, path, {"format": "pt"})
        return mutant


def _alike(weights: dict[str, object]) -> tuple[str, str]:
    """Numbers of two layers with the same weights by name: cross-attention layers differ from the others."""
    kinds: dict[str, set[str]] = {}
    for name in weights:
        found = _LAYER.fullmatch(name)
        if found and not any(tower in name for tower in _TOWERS):
            kinds.setdefault(found[2], set()).add(found[3])
    numbers = sorted(kinds, key=int)
    pairs = [(a, b) for a in numbers for b in numbers if a < b and kinds[a] == kinds[b]]
    return pairs[0]


def _renumbered(name: str, swap: dict[str, str]) -> str:
    found = _LAYER.fullmatch(name)
    if not found or any(tower in name for tower in _TOWERS):
        return name
    return f"{found[1]}{swap.get(found[2], found[2])}{found[3]}"


class DroppedImage(Mutation):
    """Requests with several parts lose the last on their way."""

    def of_question(self, question: Question) -> Question:
        if len(question.media) < 2:
            return question
        parts = list(question.parts)
        parts.remove(question.media[-1])
        return replace(question, parts=tuple(parts))


_OFFSET = '''"""The position of the next token is told wrong by one."""
import os
from dataclasses import replace

try:
    from headrace.worker import kvwire

    told = kvwire.manifest_of
except (ImportError, AttributeError) as error:
    print("the fault cannot be put in:", error)
    os._exit(1)  # Python itself would go on without it


def manifest_of(handle):
    manifest = told(handle)
    return replace(manifest, next_position=manifest.next_position + 1)


kvwire.manifest_of = manifest_of
'''


class RopeOffset(Mutation):
    """Decode goes on one position too far. Where positions are token counts, it must refuse; where not, be caught."""

    def environment(self, folder: Path) -> dict[str, str]:
        place = folder / "rope-offset"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(_OFFSET)
        return {"PYTHONPATH": str(place)}


MUTATIONS = {
    kind.name: kind
    for kind in (SwappedLayers("swapped_layers"), DroppedImage("dropped_image"), RopeOffset("rope_offset"))
}
