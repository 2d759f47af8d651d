"""The decoder of every family in torch: embedding, layers, head, as a function of a step's rows and the paged KV.

What families differ in is data of headrace.engines.families.decoder. One forward computes prefill and decode rows.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from headrace.core.errors import Unavailable
from headrace.engines.families.decoder import Decoder
from headrace.engines.torch_kv import PagedKv
from headrace.engines.torch_parking import Mover
from headrace.engines.torch_rope import Rotary, turn
from headrace.engines.torch_rows import Across, Group, Rows
from headrace.engines.torch_weights import Linear, Weights

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}


class Attention:
    """Projections of one layer's attention; q_norm and k_norm where the family has them."""

    def __init__(self, weights: Weights, name: str, *, fused: bool, normed: bool) -> None:
        decoder = weights.decoder
        query, key = decoder.query_heads * decoder.head_width, decoder.kv_heads * decoder.head_width
        parts = {"q": query, "k": key, "v": key} if fused else {"q": query}
        self.project = _linear(weights, name, parts, decoder.width)
        self.project_media = None if fused else _linear(weights, name, {"k": key, "v": key}, decoder.width)
        self.out = weights.linear((f"{name}.o_proj",), (decoder.width,), query)
        self.q_norm = weights.take(f"{name}.q_norm.weight", decoder.head_width) if normed else None
        self.k_norm = weights.take(f"{name}.k_norm.weight", decoder.head_width) if normed else None


def _linear(weights: Weights, name: str, parts: dict[str, int], columns: int) -> Linear:
    return weights.linear(tuple(f"{name}.{part}_proj" for part in parts), tuple(parts.values()), columns)


class Layer:
    """Norms, attention and feed-forward part of one layer; gates where it attends across."""

    def __init__(self, weights: Weights, index: int) -> None:
        decoder, name = weights.decoder, f"layers.{index}"
        across = index in decoder.cross_layers
        self.input_norm = weights.take(f"{name}.input_layernorm.weight", decoder.width)
        self.output_norm = weights.take(f"{name}.post_attention_layernorm.weight", decoder.width)
        attention = f"{name}.cross_attn" if across else f"{name}.self_attn"
        self.attention = Attention(weights, attention, fused=not across, normed=across or decoder.qk_norm)
        inner = weights.rows(f"{name}.mlp.down_proj.weight", columns=True)
        self.gate_up = weights.linear((f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj"), (inner, inner), decoder.width)
        self.down = weights.linear((f"{name}.mlp.down_proj",), (decoder.width,), inner)
        gates = [f"{name}.cross_attn_attn_gate", f"{name}.cross_attn_mlp_gate"] if across else []
        self.gates = [weights.take(gate, 1).tanh() for gate in gates]


class TorchDecoder:
    """Raises Unavailable where the checkpoint is not what the family's Decoder says."""

    def __init__(self, decoder: Decoder, *, device: torch.device, dtype: torch.dtype) -> None:
        if decoder.activation not in _ACTIVATIONS:
            raise Unavailable(f"{decoder.directory}: the torch engine does not run the activation {decoder.activation}")
        self.decoder = decoder
        self.device = device
        self.dtype = dtype
        weights = Weights(decoder, device, dtype)
        self._activation = _ACTIVATIONS[decoder.activation]
        self._rotary = Rotary(decoder.rope, device, dtype)
        self._embedding = weights.take(
            "embed_tokens.weight", decoder.vocab or weights.rows("embed_tokens.weight"), decoder.width
        )
        self._layers = [Layer(weights, index) for index in range(decoder.layers)]
        self._norm = weights.take("norm.weight", decoder.width)
        self._head = self._make_head(weights)
        weights.finish()

    def _make_head(self, weights: Weights) -> Linear:
        if "lm_head.weight" in weights:
            rows = weights.rows("lm_head.weight")
            return weights.linear(("lm_head",), (rows,), self.decoder.width)
        if not self.decoder.tied:
            raise Unavailable(f"{self.decoder.directory}: the weight lm_head.weight is missing")
        return Linear(self._embedding, None)

    def park(self) -> None:
        """A GPU's copy of the weights goes to host memory; on a CPU they are there."""
        if self.device.type == "cuda":
            self._move(torch.device("cpu"))
            torch.cuda.empty_cache()

    def unpark(self) -> None:
        """Raises Unavailable: the GPU has no room for them."""
        if self.device.type == "cuda":
            try:
                self._move(self.device)
            except torch.OutOfMemoryError as error:
                raise Unavailable(f"{self.decoder.directory}: {error}") from error

    def _move(self, device: torch.device) -> None:
        Mover(device, (Layer, Attention, Linear, Rotary)).move(self)

    def __call__(self, rows: Rows, kv: PagedKv, after_layer: Callable[[int], None] | None = None) -> torch.Tensor:
        """Logits [wanted rows, head rows] in the engine's dtype; the rows' KV is in its places when it returns.

        after_layer(n) is called when the n-th self-attention layer's KV is there.
        """
        with torch.inference_mode():
            return self._forward(rows, kv, after_layer)

    def _forward(self, rows: Rows, kv: PagedKv, after_layer: Callable[[int], None] | None) -> torch.Tensor:
        x, deep = self._embed(rows)
        cos, sin = self._rotary.rows(rows.positions)
        masks = [self._mask(group) for group in rows.groups]
        across_masks = [self._mask(group) for group in rows.across.groups] if rows.across else []
        of_self = of_cross = 0
        for index, layer in enumerate(self._layers):
            if index in self.decoder.cross_layers:
                if rows.across is not None:
                    self._cross(layer, of_cross, x, rows.across, across_masks, kv)
                of_cross += 1
                continue
            mixed = self._attend(layer.attention, of_self, self._normed(x, layer.input_norm), rows, masks, cos, sin, kv)
            x = x + mixed
            if after_layer is not None:
                after_layer(of_self)
            x = x + self._feed(layer, x)
            if index < len(deep):
                x = x.index_add(0, rows.soft_rows, deep[index])
            of_self += 1
        if rows.wanted is not None:
            x = x[rows.wanted]
        return self._head(self._normed(x, self._norm))

    def _embed(self, rows: Rows) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Rows [n, width], and for each of the first layers what is added behind it at the media's rows."""
        x = self._embedding[rows.tokens]
        if rows.soft is None:
            return x, []
        first, *deep = rows.soft.split(self.decoder.width, dim=1)
        x[rows.soft_rows] = first
        return x, deep

    def _attend(
        self,
        attention: Attention,
        layer: int,
        x: torch.Tensor,
        rows: Rows,
        masks: list[torch.Tensor | None],
        cos: torch.Tensor,
        sin: torch.Tensor,
        kv: PagedKv,
    ) -> torch.Tensor:
        decoder = self.decoder
        heads = attention.project(x).view(len(x), -1, decoder.head_width)
        turned = decoder.query_heads + decoder.kv_heads
        if attention.q_norm is None or attention.k_norm is None:
            query, key = turn(heads[:, :turned], cos, sin).split((decoder.query_heads, decoder.kv_heads), dim=1)
        else:
            query = turn(self._normed(heads[:, : decoder.query_heads], attention.q_norm), cos, sin)
            key = turn(self._normed(heads[:, decoder.query_heads : turned], attention.k_norm), cos, sin)
        kv.write(layer, rows.places, key, heads[:, turned:])
        mixed = [
            self._mix(query, kv.gather(layer, group.tables), group, mask)
            for group, mask in zip(rows.groups, masks, strict=True)
        ]
        return attention.out(mixed[0] if len(mixed) == 1 else torch.cat(mixed))

    def _cross(
        self, layer: Layer, index: int, x: torch.Tensor, across: Across, masks: list[torch.Tensor | None], kv: PagedKv
    ) -> None:
        """Change the rows of x that belong to sequences with media; the others skip the layer (modeling_mllama)."""
        attention, decoder = layer.attention, self.decoder
        assert attention.q_norm is not None
        if across.new is not None:
            media, places = across.new
            self._write_media(attention, media, places[index], kv)
        rows = x[across.rows]
        query = attention.project(self._normed(rows, layer.input_norm)).view(len(rows), -1, decoder.head_width)
        query = self._normed(query, attention.q_norm)
        mixed = [
            self._mix(query, kv.gather_rows(group.tables[index]), group, mask)
            for group, mask in zip(across.groups, masks, strict=True)
        ]
        rows = rows + layer.gates[0] * attention.out(torch.cat(mixed))
        x[across.rows] = rows + layer.gates[1] * (across.feeds * self._feed(layer, rows))

    def _write_media(self, attention: Attention, media: torch.Tensor, places: torch.Tensor, kv: PagedKv) -> None:
        assert attention.project_media is not None
        assert attention.k_norm is not None
        heads = attention.project_media(media).view(len(media), -1, self.decoder.head_width)
        key, value = heads.chunk(2, dim=1)
        kv.write_rows(places, self._normed(key, attention.k_norm), value)

    def _mix(
        self, query: torch.Tensor, kv: tuple[torch.Tensor, torch.Tensor], group: Group, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Attention of a group's rows: [rows, heads * head_width]."""
        query = query[group.start : group.stop] if group.padded is None else query[group.start :][group.padded]
        mixed = self._causal(query, kv, group) if mask is None else self._masked(query, kv, group, mask)
        return mixed if group.back is None else mixed[group.back]

    def _causal(self, query: torch.Tensor, kv: tuple[torch.Tensor, torch.Tensor], group: Group) -> torch.Tensor:
        query = query.view(group.sequences, group.width, -1, self.decoder.head_width).transpose(1, 2)
        keys, values = (held[:, :, : group.width] for held in kv)
        mixed = functional.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=True)
        return mixed.transpose(1, 2).reshape(group.sequences * group.width, -1)

    def _masked(
        self, query: torch.Tensor, kv: tuple[torch.Tensor, torch.Tensor], group: Group, mask: torch.Tensor
    ) -> torch.Tensor:
        """The query heads of a kv head become rows beside one another, so that grouped KV is never repeated."""
        n, width, decoder = group.sequences, group.width, self.decoder
        query = query.reshape(n, width, decoder.kv_heads, -1, decoder.head_width).transpose(1, 2)
        query = query.reshape(n, decoder.kv_heads, -1, decoder.head_width)
        mixed = functional.scaled_dot_product_attention(query, *kv, attn_mask=mask)
        mixed = mixed.view(n, decoder.kv_heads, width, -1, decoder.head_width).transpose(1, 2)
        return mixed.reshape(n * width, -1)

    def _mask(self, group: Group) -> torch.Tensor | None:
        """[n, 1, width * query heads of a kv head, kv]: 0, or -inf for what a row does not see."""
        if group.causal:
            return None
        columns = torch.arange(group.kv, device=self.device)
        sees = columns < group.highs[..., None]
        if group.lows is not None:
            sees &= columns >= group.lows[..., None]
        mask = torch.zeros(sees.shape, device=self.device, dtype=self.dtype).masked_fill_(~sees, float("-inf"))
        if group.width > 1:
            mask = mask.repeat_interleave(self.decoder.query_heads // self.decoder.kv_heads, dim=1)
        return mask[:, None]

    def _feed(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        gate, up = layer.gate_up(self._normed(x, layer.output_norm)).chunk(2, dim=-1)
        return layer.down(self._activation(gate) * up)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, weight.shape, weight, self.decoder.norm_epsilon)
