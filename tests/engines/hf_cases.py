"""Small random checkpoints with what transformers answers on them, and the same requests as an engine takes them.

Media enter behind their encoders: the rows that the reference's own tower returns, so that only the decoder is judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from headrace.core.types import Key, MediaSpan, Sampling
from headrace.engines.base import Embeddings, SequenceInput
from headrace.engines.families.decoder import Decoder
from headrace.engines.families.directory import open_decoder
from tests.checkpoints_more import build

TOP = 20
Words = list[int]


@dataclass(frozen=True)
class Request:
    """A request twice: for an engine, and what generate() takes beside input_ids."""

    given: SequenceInput
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    tokens: list[int]
    logprobs: NDArray[np.float64]  # [tokens, vocab]


@dataclass(frozen=True)
class Case:
    folder: Path
    decoder: Decoder
    requests: list[Request]
    answers: list[Answer]


def case(kind: str, parent: Path, *, count: int = 16, **changes: Any) -> Case:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    folder = build(kind, parent, **changes)
    architecture = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    model = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    requests = REQUESTS.get(kind, texts)(model, count)
    with torch.no_grad():
        answers = [answer(model, request, count) for request in requests]
    return Case(folder, open_decoder(folder), requests, answers)


def answer(model: Any, request: Request, count: int) -> Answer:
    ids = torch.tensor([request.given.tokens])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        output_logits=True,
        return_dict_in_generate=True,
        **request.inputs,
    )
    logprobs = torch.log_softmax(torch.cat(out.logits).double(), -1).numpy()
    return Answer(out.sequences[0, ids.shape[1] :].tolist(), logprobs)


def request(
    name: str,
    tokens: Words,
    count: int,
    spans: Sequence[MediaSpan] = (),
    embeddings: Sequence[Embeddings] = (),
    **inputs: Any,
) -> Request:
    sampling = Sampling(max_tokens=count, ignore_eos=True, logprobs=TOP)
    given = SequenceInput(Key(name, 1), tuple(tokens), len(tokens), tuple(spans), tuple(embeddings), "", sampling)
    return Request(given, inputs)


def words(seed: int, count: int) -> Words:
    return [int(token) for token in np.random.default_rng(seed).integers(3, 250, count)]


def texts(_model: Any, count: int) -> list[Request]:
    return [request(f"text of {length}", words(length, length), count) for length in (1, 7, 33, 70, 130)]


def qwen_vl(model: Any, count: int) -> list[Request]:
    """Text, one picture, two pictures of different grids with text between, the second across a chunk's border."""
    vision = model.config.vision_config
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    generator = torch.Generator().manual_seed(5)

    def pictured(name: str, *pieces: Words | tuple[int, int]) -> Request:
        tokens, spans, rows, patches = list[int](), list[MediaSpan](), list[Embeddings](), list[Any]()
        for piece in pieces:
            if isinstance(piece, list):
                tokens += piece
                continue
            grid = torch.tensor([[1, piece[0] * 2, piece[1] * 2]])
            patches.append((torch.randn(int(grid.prod()), width, generator=generator), grid))
            rows.append(_tower_rows(model.model.visual(patches[-1][0], grid_thw=grid)))
            spans.append(MediaSpan(len(spans), len(tokens) + 1, len(rows[-1]), grid=(1, *piece)))
            image = [model.config.image_token_id] * len(rows[-1])
            tokens += [model.config.vision_start_token_id, *image, model.config.vision_end_token_id]
        types = torch.tensor([[int(token == model.config.image_token_id) for token in tokens]])
        inputs = {
            "pixel_values": torch.cat([pixels for pixels, _ in patches]),
            "image_grid_thw": torch.cat([grid for _, grid in patches]),
            "mm_token_type_ids": types,
        }
        return request(name, tokens, count, spans, rows, **inputs)

    with torch.no_grad():
        return [
            request("text", words(1, 40), count),
            pictured("one picture", words(2, 5), (3, 4), words(3, 6)),
            pictured("picture first", (2, 2), words(4, 20)),
            pictured("two pictures", words(5, 9), (2, 5), words(6, 3), (4, 3), words(7, 30)),
        ]


def _tower_rows(out: Any) -> Embeddings:
    """Embedding rows, and beside them those for the decoder's first layers where there are any."""
    parts = [out.pooler_output, *(getattr(out, "deepstack_features", None) or [])]
    return np.asarray(torch.cat(parts, dim=-1).numpy(), np.float32)


def mllama(model: Any, count: int) -> list[Request]:
    """Text, a picture of two tiles, two pictures in a row, two with text between."""
    from transformers.models.mllama import processing_mllama as reference

    vision, image = model.config.vision_config, model.config.image_token_index
    generator = torch.Generator().manual_seed(6)
    ratios = vision.supported_aspect_ratios
    share = len(model.config.text_config.cross_attention_layers), model.config.text_config.num_hidden_layers
    embedding_rows = vision.max_num_tiles * model.model.vision_model.num_patches

    def pictured(name: str, tiles: list[int], *pieces: Words) -> Request:
        """A picture before each piece but the first."""
        tokens, spans = list(pieces[0]), list[MediaSpan]()
        for part, piece in enumerate(pieces[1:]):
            kv_tokens = -(-embedding_rows * share[0] // (share[1] - share[0]))
            grid = (tiles[part], model.model.vision_model.num_patches)
            spans.append(MediaSpan(part, len(tokens), 1, grid, embedding_rows, kv_tokens=kv_tokens))
            tokens += [image, *piece]
        side = vision.image_size
        pixels = torch.randn(1, len(tiles), vision.max_num_tiles, 3, side, side, generator=generator)
        there = torch.arange(vision.max_num_tiles) < torch.tensor(tiles)[:, None]
        seen = reference.convert_sparse_cross_attention_mask_to_dense(
            [reference.get_cross_attention_token_mask(tokens, image)], [tiles], vision.max_num_tiles, len(tokens)
        )
        inputs = {
            "pixel_values": pixels * there[None, :, :, None, None, None],
            "aspect_ratio_ids": torch.tensor([[ratios.index([1, count]) + 1 for count in tiles]]),
            "aspect_ratio_mask": there[None].long(),
            "cross_attention_mask": torch.from_numpy(seen),
        }
        towered = {key: value for key, value in inputs.items() if key != "cross_attention_mask"}
        rows = model.model.multi_modal_projector(model.model.vision_model(**towered).last_hidden_state)
        embeddings = [part.reshape(embedding_rows, -1).numpy() for part in rows[0]]
        return request(name, tokens, count, spans, embeddings, **inputs)

    with torch.no_grad():
        return [
            request("text", words(1, 50), count),
            pictured("one picture", [2], words(2, 5), words(3, 20)),
            pictured("picture first", [4], [], words(4, 3)),
            pictured("two in a row", [1, 3], words(5, 7), [], words(6, 9)),
            pictured("text between", [3, 1], words(7, 1), words(8, 40), words(9, 2)),
        ]


REQUESTS = {"qwen2_5_vl": qwen_vl, "qwen3_vl": qwen_vl, "mllama": mllama}
