"""Profiles: what a GPU costs an iteration and a token of KV, from public numbers whose source each file names.

One TOML file is one profile; its tables are the fields of StepCost and OutputRule.
"""

import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from headrace.core.cost import Curve, StepCost


class ProfileError(ValueError):
    """A profile that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class OutputRule:
    mean_tokens: float = 0.0  # of an exponential distribution, drawn from the prompt's hash; 0: it never ends itself

    def __post_init__(self) -> None:
        assert self.mean_tokens >= 0


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    source: str  # where the numbers are from
    kv_bytes_per_token: int  # size of an exported KV cache beyond its header
    chunk_tokens: int = 8192  # prefill tokens a step: what vLLM's server takes by default on GPUs of this class
    cost: StepCost = field(default_factory=StepCost)
    output: OutputRule = field(default_factory=OutputRule)


def load_profile(name_or_path: str) -> Profile:
    """A packaged profile by name (zero, h100-qwen3-8b, ...) or any TOML file by path.

    Raises:
        ProfileError: no such profile, or its content is wrong.
    """
    packaged = resources.files(__name__) / f"{name_or_path}.toml"
    source = packaged if packaged.is_file() else Path(name_or_path)
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8"))
        return Profile(
            name=Path(name_or_path).stem,
            source=str(values.pop("source")),
            kv_bytes_per_token=int(values.pop("kv_bytes_per_token")),
            chunk_tokens=int(values.pop("chunk_tokens", 8192)),
            cost=_table(StepCost, values.pop("cost", {})),
            output=_table(OutputRule, values.pop("output", {})),
        )
    except FileNotFoundError as error:
        raise ProfileError(f"no profile {name_or_path!r}; packaged: {', '.join(packaged_profiles())}") from error
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ProfileError(f"profile {name_or_path!r} is wrong: {error!r}") from error


def packaged_profiles() -> list[str]:
    return sorted(
        Path(entry.name).stem for entry in resources.files(__name__).iterdir() if entry.name.endswith(".toml")
    )


def _table(cls: Any, values: dict[str, Any]) -> Any:
    known = {entry.name for entry in fields(cls)}
    if unknown := values.keys() - known:
        raise ValueError(f"unknown {sorted(unknown)}; known: {sorted(known)}")
    return cls(**{name: _curve(value) if isinstance(value, list) else float(value) for name, value in values.items()})


def _curve(points: list[list[float]]) -> Curve:
    return Curve(tuple(float(x) for x, _ in points), tuple(float(y) for _, y in points))
