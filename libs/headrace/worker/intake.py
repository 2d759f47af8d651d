"""Commands as requests that this worker can hold, with what they need of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.core.commands import JoinCommand, PrefillCommand
from headrace.core.errors import HeadraceError, StageError
from headrace.core.stages.kv import blocks_for
from headrace.engines.base import Embeddings, ModelSpec, SequenceInput
from headrace.mesh.errors import TransferError
from headrace.worker.finish import Finish
from headrace.worker.holds import Held, State, media_parts


@dataclass(frozen=True, slots=True)
class Intake:
    me: str  # this worker's id
    spec: ModelSpec
    pieces: Sequence[bytes]  # token id -> bytes
    blocks: int  # that the engine has in all
    hands_over: bool = True  # else a request stays here from its first token to its last

    def prefill(self, command: PrefillCommand, now_s: float, *, traced: bool) -> Held:
        """Its wait began where the queue's ended: the command's way here belongs to it. Encoders may end later."""
        since_s = next((span.end_s for span in reversed(command.timeline) if span.stage == "queue"), now_s)
        return self._held(command, "waiting", since_s, traced, decodes_here=command.decode_worker == self.me)

    def join(self, command: JoinCommand, now_s: float, *, traced: bool) -> Held:
        """The transfer began where prefill or eviction ended: its command's way here belongs to it."""
        before = [span.end_s for span in command.request.timeline if span.stage in ("prefill", "evicted")]
        held = self._held(command.request, "joining", before[-1] if before else now_s, traced, decodes_here=True)
        held.joining_kv = command.kv
        return held

    def _held(self, command: PrefillCommand, state: State, since_s: float, traced: bool, *, decodes_here: bool) -> Held:
        sampling = command.sampling
        # Whoever hands over after its first token needs no room for the rest.
        reserved = sampling if decodes_here else replace(sampling, max_tokens=len(command.emitted) + 1)
        prefix_tokens = self.spec.prefix_tokens.get(command.prompt.prefix, 0)
        return Held(
            key=command.key,
            command=command,
            gateway=command.gateway,
            state=state,
            since_s=since_s,
            sequence=SequenceInput(
                key=command.key,
                tokens=command.prompt.tokens + command.emitted,
                prompt_len=len(command.prompt.tokens),
                spans=command.prompt.spans,
                embeddings=(),
                prefix=command.prompt.prefix,
                sampling=reserved,
            ),
            finish=Finish(sampling, self.spec.eos_ids, self.pieces),
            blocks=blocks_for(prefix_tokens + command.prompt.kv_tokens + reserved.max_tokens, self.spec.block_tokens),
            prefix_tokens=prefix_tokens,
            tokens=list(command.emitted),
            logprobs=dict(command.emitted_logprobs),
            logged=0,
            logged_s=since_s,
            traced=traced,
            cached_tokens=command.cached_tokens,
        )

    @property
    def overlaps(self) -> bool:
        """Whether prefill may begin on a request's first media parts: with cross-attention the first token sees all."""
        return self.spec.contract == "decoder" and bool(self.spec.modalities) and self.hands_over

    def with_embeddings(self, held: Held, embeddings: tuple[Embeddings, ...]) -> SequenceInput:
        """Of all its media parts, or of the first ones.

        Raises:
            TransferError: they do not fit the prompt's media positions.
        """
        more = len(embeddings) < media_parts(held.command.prompt)
        for span in held.sequence.spans:
            if more and self.overlaps and span.part >= len(embeddings):
                continue
            want = (span.embedding_rows, self.spec.embed_width)
            if span.part >= len(embeddings) or embeddings[span.part].shape != want:
                raise TransferError(f"media part {span.part}: no embeddings of shape {want}")
        return replace(held.sequence, embeddings=embeddings, awaits_media=more)

    def objection(self, held: Held) -> HeadraceError | None:
        """Why this worker can never run the request, however long it waits."""
        prompt = held.command.prompt
        if not self.hands_over and (held.joining_kv is not None or held.command.decode_worker != self.me):
            return StageError(f"{self.me} has an engine whose KV cache cannot be handed over")
        if prompt.prefix and prompt.prefix not in self.spec.prefix_tokens:
            return StageError(f"the model {self.spec.name} has no prefix {prompt.prefix!r}")
        positions = (
            self.spec.prefix_tokens.get(prompt.prefix, 0) + len(prompt.tokens) + held.command.sampling.max_tokens
        )
        if positions > self.spec.context_tokens:
            return StageError(f"needs {positions} positions; the model's context has {self.spec.context_tokens}")
        if held.blocks > self.blocks:
            return StageError(f"needs {held.blocks} KV blocks; {self.me} has {self.blocks}")
        return None
