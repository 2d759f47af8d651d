"""What a decision transformer attends with: from scratch, or frozen layers of a language model with low-rank adapters.

`language` are the first layers of the packaged SmolLM2; `shuffled` the same with every matrix's entries in random
order, which keeps their distribution and nothing that was learnt; `checkpoint` any local Hugging Face directory.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from headrace.engines.families import smollm2

SCRATCH_LAYERS, SCRATCH_WIDTH = 3, 128  # with one head: LaMo's network without a language model (arXiv:2310.20587)
LANGUAGE_LAYERS = 2  # of 30: 7 of 106 million weights, what two cores train in minutes
RANK, ALPHA = 16, 32  # LaMo's, for continuous control; its dropout of 0.1 took a fifth of the time
_MLP_WIDTH = 1536  # of SmolLM2
_POSITIONS = 1024


class Body(nn.Module):
    """forward(x float32 [rows, tokens, width], seen bool [rows, tokens]) -> float32 [rows, tokens, width]; causal.

    Attributes:
        scale: root mean square of the token embeddings that the model was made for.
    """

    def __init__(self, model: nn.Module, width: int, scale: float) -> None:
        super().__init__()
        self.model, self.width, self.scale = model, width, scale
        self._dtype = next(model.parameters()).dtype

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        positions = (seen.long().cumsum(1) - 1).clamp(min=0)  # counted from the first that is real
        # With all there, no mask: torch then knows that attention is causal.
        mask = None if bool(seen.all()) else seen.long()
        out = self.model(
            inputs_embeds=x.to(self._dtype), attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        return out.float()


def scratch(seed: int, layers: int = SCRATCH_LAYERS, width: int = SCRATCH_WIDTH) -> Body:
    config = GPT2Config(
        vocab_size=1,
        n_positions=_POSITIONS,
        n_embd=width,
        n_layer=layers,
        n_head=1,
        activation_function="gelu_pytorch_tanh",  # GPT-2's, in one call
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return Body(_seeded(seed, lambda: _without_tokens(GPT2Model(config))), width, 1.0)


def language(seed: int, layers: int = LANGUAGE_LAYERS) -> Body:
    """The packaged SmolLM2's first layers, frozen in bfloat16 (they were packed in 8 bits); adapters in float32."""
    return _adapted(_smollm2(layers, None), seed, ("q_proj", "k_proj", "v_proj"))


def shuffled(seed: int, layers: int = LANGUAGE_LAYERS) -> Body:
    """Frozen random weights of the same shapes and the same distribution."""
    return _adapted(_smollm2(layers, seed), seed, ("q_proj", "k_proj", "v_proj"))


def checkpoint(path: Path, seed: int, targets: Sequence[str] = ("c_attn",)) -> Body:
    """Any causal model of a local directory; GPT-2's projections of q, k and v are one matrix, `c_attn`."""
    model = AutoModel.from_pretrained(str(path), local_files_only=True, dtype=torch.float32)
    scale = float(model.get_input_embeddings().weight.detach().pow(2).mean().sqrt())
    return _adapted((_without_tokens(model), scale), seed, targets)


BODIES: dict[str, Callable[[int], Body]] = {"lm_lora": language, "scratch": scratch, "random_lora": shuffled}


def _adapted(of: tuple[Any, float], seed: int, targets: Sequence[str]) -> Body:
    model, scale = of
    lora = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=list(targets),
        fan_in_fan_out="c_attn" in targets,  # GPT-2 keeps its matrices transposed
    )
    return Body(_seeded(seed, lambda: get_peft_model(model, lora)), model.config.hidden_size, scale)


def _smollm2(layers: int, shuffle: int | None) -> tuple[Any, float]:
    config = LlamaConfig(
        vocab_size=1,
        hidden_size=smollm2.WIDTH,
        intermediate_size=_MLP_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=smollm2.QUERY_HEADS,
        num_key_value_heads=smollm2.KV_HEADS,
        rms_norm_eps=smollm2.NORM_EPSILON,
        rope_theta=smollm2.ROPE_BASE,
        bos_token_id=0,
        eos_token_id=0,
    )
    state, scale = _packaged(layers)
    if shuffle is not None:
        random = torch.Generator().manual_seed(shuffle)
        state = {name: _in_random_order(values, random) for name, values in state.items()}
    model = LlamaModel(config)
    missing, extra = model.load_state_dict(state, strict=False)
    assert (missing, extra) == (["embed_tokens.weight"], []), (missing, extra)
    for each in model.parameters():  # not the rotary angles, which need float32
        each.data = each.data.to(torch.bfloat16)
    return _without_tokens(model), scale


@lru_cache(maxsize=1)
def _packaged(layers: int) -> tuple[dict[str, Tensor], float]:
    """The first layers by LlamaModel's names, and the root mean square of the token embeddings."""
    weights = smollm2.load_weights(smollm2.weights_path())
    kept = {f"model.layers.{layer}." for layer in range(layers)}
    state = {
        name.removeprefix("model."): torch.from_numpy(values)
        for name, values in weights.items()
        if name == "model.norm.weight" or name.startswith(tuple(kept))
    }
    return state, float((weights["model.embed_tokens.weight"] ** 2).mean() ** 0.5)


def _in_random_order(values: Tensor, random: torch.Generator) -> Tensor:
    return values.flatten()[torch.randperm(values.numel(), generator=random)].view_as(values)


def _without_tokens(model: Any) -> Any:
    """No token is ever looked up; the table would count as a parameter."""
    model.set_input_embeddings(nn.Identity())
    return model


def _seeded(seed: int, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
