"""The default model's side of `headrace bench parity`: transformers' Llama with the packaged weights.

Adapters enter as they do in serving: embeddings in place of the placeholders, a learned prefix as past keys and values.
"""

from typing import Any

import numpy as np

from headrace.core.types import Media
from headrace.engines.families import ChatMessage, MediaPart, TextPart, checkpoint, family
from headrace.modalities import Encoder
from loadtest.benches.parity_questions import Question
from loadtest.benches.parity_reference import Told

MODEL = "smollm2-135m"


class DefaultReference:
    def __init__(self) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        self._torch = torch
        self._family, self._checkpoint = family(MODEL), checkpoint(MODEL)
        shape, weights = self._checkpoint.shape, self._checkpoint.load_weights()
        config = LlamaConfig(
            vocab_size=self._family.spec.vocab_size,
            hidden_size=shape.width,
            intermediate_size=len(weights["model.layers.0.mlp.up_proj.weight"]),
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.query_heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.context_tokens,
            rms_norm_eps=shape.norm_epsilon,
            rope_theta=shape.rope_base,
            tie_word_embeddings=True,
        )
        self._model = LlamaForCausalLM(config).eval()
        missing = self._model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
        assert not missing.unexpected_keys
        assert set(missing.missing_keys) <= {"lm_head.weight"}
        self._model.tie_weights()
        self._encoders: dict[str, Encoder] = {}

    def answer(self, question: Question) -> Told:
        """Greedy, one token at a time, as `generate` does it: the prefix and the embeddings cannot go through that."""
        torch = self._torch
        embeddings, past = self._start(question)
        tokens, rows = list[int](), []
        with torch.no_grad():
            while len(tokens) < question.max_tokens:
                out = self._model(inputs_embeds=embeddings, past_key_values=past, use_cache=True)
                logits = out.logits[0, -1].double()
                rows.append(torch.log_softmax(logits, -1).numpy())
                tokens.append(int(logits.argmax()))
                past = out.past_key_values
                embeddings = self._model.get_input_embeddings()(torch.tensor([tokens[-1:]]))
        return Told(tokens, np.stack(rows))

    def _start(self, question: Question) -> tuple[Any, Any]:
        """Embeddings [1, tokens, width] of the rendered prompt, and the cache of its named prefix."""
        from transformers import DynamicCache

        torch = self._torch
        media, rows = self._encode(question)
        content = iter(range(len(media)))
        parts = tuple(TextPart(p) if isinstance(p, str) else MediaPart(next(content)) for p in question.parts)
        prompt = self._family.render([ChatMessage("user", parts)], media)
        embeddings = self._model.get_input_embeddings()(torch.tensor([prompt.tokens])).detach().clone()
        for span in prompt.spans:
            embeddings[0, span.offset : span.offset + span.length] = torch.from_numpy(rows[span.part])
        past = DynamicCache()
        if prompt.prefix:
            for layer, (keys, values) in enumerate(self._checkpoint.load_prefix(prompt.prefix)):
                past.update(torch.from_numpy(keys)[None], torch.from_numpy(values)[None], layer)
        return embeddings, past

    def _encode(self, question: Question) -> tuple[list[Media], list[Any]]:
        media, rows = [], []
        for part in question.media:
            kind = self._family.modality(part.modality)
            encoder = self._encoders.setdefault(part.modality, kind.load(1))
            meta = kind.probe(part.data)
            media.append(Media(meta, "", kind.token_count(meta)))
            rows += encoder.encode([encoder.preprocess(part.data, meta)])
        return media, rows
