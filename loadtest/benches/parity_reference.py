"""The other side of `headrace bench parity`: transformers on the same checkpoint, one request at a time.

No batching, no cache but its own: what a careful user would compare with.
"""

import json
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loadtest.benches.parity_questions import Part, Question
from tests.families.reference import processor

Logprobs = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Told:
    """tokens [n] and the log-probabilities [n, vocab] that they were chosen from."""

    tokens: list[int]
    logprobs: Logprobs


class Reference:
    """`generate` of the architecture's own class with the checkpoint's own processor."""

    def __init__(self, directory: Path) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._torch = torch
        architecture = transformers.AutoConfig.from_pretrained(directory).architectures[0]
        self._model = getattr(transformers, architecture).from_pretrained(directory, dtype=torch.float32).eval()
        self._model.generation_config.eos_token_id = None
        self._processor: Any = _processor(directory)

    def answer(self, question: Question) -> Told:
        inputs = self._inputs(question)
        with self._torch.no_grad():
            out = self._model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=question.max_tokens,
                output_logits=True,
                return_dict_in_generate=True,
            )
        tokens = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        logits = self._torch.cat(out.logits).double()
        return Told(tokens, self._torch.log_softmax(logits, -1).numpy())

    def _inputs(self, question: Question) -> Any:
        content = [_content(part) for part in question.parts]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        if not question.media:
            tokenizer = getattr(self._processor, "tokenizer", self._processor)
            return tokenizer(text, return_tensors="pt", add_special_tokens=False)
        return self._processor(text=text, return_tensors="pt", **_media(question.media))


def _processor(directory: Path) -> Any:
    """Of a text model the tokenizer, of pictures a processor without its video half, which needs torchvision."""
    import transformers

    if not (directory / "processor_config.json").exists():
        return transformers.AutoTokenizer.from_pretrained(directory)
    numbers = json.loads((directory / "preprocessor_config.json").read_text())
    pictures = "image_processor_type" in numbers
    return processor(directory) if pictures else transformers.AutoProcessor.from_pretrained(directory)


def _content(part: str | Part) -> dict[str, str]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": part.modality}


def _media(parts: Sequence[Part]) -> dict[str, Any]:
    if parts[0].modality == "audio":
        return {"audio": [_samples(part.data) for part in parts], "sampling_rate": 16_000}
    return {"images": [Image.open(BytesIO(part.data)).convert("RGB") for part in parts]}


def _samples(data: bytes) -> NDArray[np.float32]:
    with wave.open(BytesIO(data)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)
