"""What a request is charged for: its tokens by kind, and the energy that its stages have told."""

from headrace.core.types import Prompt, StageSpan, Usage


def usage_of(
    prompt: Prompt,
    prefix_tokens: int,
    completion_tokens: int,
    cached_tokens: int = 0,
    timeline: tuple[StageSpan, ...] = (),
) -> Usage:
    """Media count by the embedding rows that they bring, also where those take fewer positions (cross-attention).

    cached_tokens are prompt tokens that were not computed. timeline: all that it has been through, lost attempts too.
    """
    beside = sum(span.embedding_rows - span.length for span in prompt.spans)
    media = {"image": 0, "audio": 0, "video": 0}
    for span in prompt.spans:
        media[span.modality] = media.get(span.modality, 0) + span.embedding_rows
    return Usage(
        prompt_tokens=prefix_tokens + len(prompt.tokens) + beside,
        completion_tokens=completion_tokens,
        image_tokens=media["image"],
        cached_tokens=cached_tokens,
        joules=sum([span.joules for span in timeline]),
        audio_tokens=media["audio"],
        video_tokens=media["video"],
    )
