"""Simulated gateways: an arrival of the workload becomes a request as the journal would keep it."""

from collections.abc import Iterable
from functools import lru_cache
from typing import cast

from headrace.core.types import Media, MediaMeta, MediaSpan, Prompt, Request, Sampling
from headrace.modalities import modality
from headrace.profiles import ModelCard, model
from headrace.sim.asked import Asked, Part
from headrace.sim.kind import Kind
from headrace.sim.world import World
from headrace.workload.arrival import Arrival
from headrace.workload.arrival import Part as AskedPart
from headrace.workload.scenario import Scenario

GATEWAY = "gateway-0"
_AUDIO_TOKENS_PER_S = 25.0  # of towers that hear (Qwen2-Audio: 25 a second); a trace's own count goes before
_FRAMES_PER_S = 1.0  # of a video


class Gateway:
    def __init__(self, world: World, scenario: Scenario, kinds: Iterable[Kind]) -> None:
        self._world = world
        self._scenario = scenario
        self._cards: dict[str, ModelCard] = {}
        self._cross: dict[str, float] = {}  # model -> KV of a media row, in tokens of the model's KV
        self._context_tokens: dict[str, int] = {}
        self._part_tokens: dict[str, int] = {}  # of models whose pictures all count the same
        for kind in [each for first in kinds for each in (first, *first.others)]:
            if kind.part_tokens:
                self._part_tokens[kind.model] = kind.part_tokens
            if kind.generates:
                self._context_tokens[kind.model] = kind.context_tokens
            if kind.cross_kv_bytes_per_token:
                self._cross[kind.model] = kind.cross_kv_bytes_per_token / kind.kv_bytes_per_token

    def ask(self, arrival: Arrival) -> Asked:
        """Raises ScenarioError: a class that the scenario does not have."""
        world, name = self._world, arrival.model or self._scenario.model
        counted = [self._count(name, part) for part in arrival.parts]
        media_tokens = sum(tokens for tokens, _ in counted)
        slo = self._scenario.classes[self._scenario.class_index(arrival.slo_class)]
        row = world.ledger.arrive(
            world.now_s,
            arrival.input_tokens,
            media_tokens,
            len(counted),
            self._scenario.class_index(arrival.slo_class),
            arrival.ttft_s or slo.ttft_s,
        )
        prompt = self._prompt(name, arrival.input_tokens, [tokens for tokens, _ in counted])
        now_s = world.now_s + world.gateway_off_s + world.admit_s(tuple([part for _, part in counted]))
        request = Request(
            id=f"{row:032x}",
            tenant=arrival.tenant,
            model=name,
            slo_class=slo.name,
            accepted_s=now_s,
            deadline_s=now_s + slo.timeout_s,
            prompt=prompt,
            media=tuple([_media(part, tokens) for part, (tokens, _) in zip(arrival.parts, counted, strict=True)]),
            sampling=Sampling(arrival.max_tokens or arrival.output_tokens),
            gateway=GATEWAY,
            ttft_s=arrival.ttft_s,
            tbt_s=arrival.tbt_s,
            priority=arrival.priority,
            flow=arrival.flow,
        )
        cross = media_tokens if name in self._cross else 0
        asked = Asked(request, row, arrival.output_tokens, tuple([part for _, part in counted]), cross)
        positions = len(prompt.tokens) + request.sampling.max_tokens
        if positions > self._context_tokens.get(name, positions):
            world.ledger.count("too_long_for_the_context")
            world.refuse(asked)
        else:
            world.arrive(asked)
        return asked

    def _prompt(self, name: str, text_tokens: int, media: list[int]) -> Prompt:
        """Media take positions, or stand beside the prompt with one position each: the model's contract."""
        if not media:
            return Prompt(_positions(text_tokens))
        ratio = self._cross.get(name)
        if ratio is not None:
            spans = [
                MediaSpan(at, at, 1, rows=tokens, kv_tokens=round(tokens * ratio)) for at, tokens in enumerate(media)
            ]
            return Prompt(_positions(text_tokens + len(media)), tuple(spans))
        spans, at = [], 0
        for number, tokens in enumerate(media):
            spans.append(MediaSpan(number, at, tokens))
            at += tokens
        return Prompt(_positions(text_tokens + at), tuple(spans))

    def _count(self, name: str, part: AskedPart) -> tuple[int, Part]:
        """Its tokens, as known from the header alone, and what its encoder will compute."""
        if part.modality == "image" and (tokens := self._part_tokens.get(name, 0)):
            return part.tokens or tokens, Part(1, part.width * part.height)
        card = self._cards.get(name)
        if card is None:
            card = self._cards[name] = model(name)
        if part.modality == "audio":
            tokens = part.tokens or max(1, round(part.duration_s * _AUDIO_TOKENS_PER_S))
            return tokens, Part(max(1, round(part.duration_s / 30)), 0)
        if part.modality not in ("image", "video"):  # counted by its own file, encoded as an image of so many tokens
            tokens = part.tokens or modality(part.modality).token_count(_meta(part))
            return tokens, Part(max(1, round(tokens / card.tiling.tokens_per_tile)) if card.tiling else 1, 0)
        frames = max(1, round(part.duration_s * _FRAMES_PER_S)) if part.modality == "video" else 1
        tokens, tiles = _image(card, part.width, part.height)
        if part.tokens:
            assert card.tiling is not None
            tokens, frames = part.tokens, 1
            tiles = max(1, round(part.tokens / card.tiling.tokens_per_tile)) if not part.width else tiles
        return tokens * frames, Part(tiles * frames, part.width * part.height * frames)


@lru_cache(maxsize=65_536)
def _image(card: ModelCard, width: int, height: int) -> tuple[int, int]:
    """Tokens and tiles; a size that is not known is taken for one tile's."""
    assert card.tiling is not None, f"{card.name} takes no images"
    width, height = width or card.tiling.tile_px, height or card.tiling.tile_px
    return card.media_tokens(width, height), card.tiles(width, height)


def _media(part: AskedPart, tokens: int) -> Media:
    return Media(_meta(part), part.content, tokens)


def _meta(part: AskedPart) -> MediaMeta:
    return MediaMeta(part.modality, "", part.width, part.height, 0, part.duration_s)


def _positions(count: int) -> tuple[int, ...]:
    """Only their number counts: a range stands for the tokens, and takes no memory."""
    return cast(tuple[int, ...], range(count))
