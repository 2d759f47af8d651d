"""One request of a workload, before any model or mesh has seen it: when it comes, what it holds, what is answered."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """One media part. `tokens` as a trace counted them; 0: the model counts from the size."""

    modality: str = "image"
    width: int = 0  # pixels; 0 for audio
    height: int = 0
    duration_s: float = 0.0  # of audio and video
    tokens: int = 0
    content: str = ""  # a name of its bytes: parts with one name are the same file; empty: nobody else asks about it


@dataclass(frozen=True, slots=True)
class Arrival:
    """Fields that are empty or 0 are the scenario's to fill in."""

    at_s: float  # since the workload's beginning
    input_tokens: int  # of text: media tokens come on top
    output_tokens: int  # what the model will say, at least one
    parts: tuple[Part, ...] = ()
    max_tokens: int = 0  # what the client allows, at least output_tokens; 0: exactly output_tokens
    slo_class: str = ""
    model: str = ""
    tenant: str = ""
    blocks: tuple[int, ...] = ()  # ids of the prompt's prefix blocks where a trace tells which prompts share them
    ttft_s: float = 0.0  # its own target for the first token, and between two tokens; 0: its class's
    tbt_s: float = 0.0
    priority: int = 0  # higher is sooner: headrace.core.slo says how far
    flow: str = ""  # whose share it counts against; empty: its tenant's

    def __post_init__(self) -> None:
        assert self.input_tokens >= 1
        assert self.output_tokens >= 1
        assert not self.max_tokens or self.max_tokens >= self.output_tokens
