"""What is known of a request when its output length is predicted. The prompt's words are not: the core sees numbers.

A text model turns them into `embedding` outside, where one is asked for.
"""

from collections import Counter
from dataclasses import dataclass

from headrace.core.types import Request

Parts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Features:
    prompt_tokens: int  # media positions apart
    max_tokens: int
    model: str = ""
    slo_class: str = ""
    parts: Parts = ()  # (modality, how many), by name
    media_tokens: int = 0  # embedding rows of all parts
    embedding: tuple[float, ...] = ()

    @property
    def media_parts(self) -> int:
        return sum(count for _, count in self.parts)

    @property
    def kind(self) -> str:
        """The modalities by name: "text", "image", "audio+image" ..."""
        return "+".join(modality for modality, _ in self.parts) or "text"


def of_request(request: Request) -> Features:
    positions = sum(span.length for span in request.prompt.spans)
    return Features(
        prompt_tokens=len(request.prompt.tokens) - positions,
        max_tokens=request.sampling.max_tokens,
        model=request.model,
        slo_class=request.slo_class,
        parts=tuple(sorted(Counter(part.meta.modality for part in request.media).items())) if request.media else (),
        media_tokens=sum(part.tokens for part in request.media),
    )
