"""The reference that families are held to: transformers' own processors and models, on the same directory.

Video processors need torchvision, which is not there: processors are made without theirs.
"""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def quiet() -> None:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def processor(path: Path) -> Any:
    import transformers

    words = json.loads((path / "processor_config.json").read_text())
    base: Any = getattr(transformers, words.pop("processor_class"))

    def check(self: Any, name: str, argument: Any) -> Any:
        return None if name == "video_processor" else base.check_argument_for_proper_class(self, name, argument)

    without_video = type(base.__name__, (base,), {"check_argument_for_proper_class": check})
    if "video_processor" in base.get_attributes():
        words["video_processor"] = None
    return without_video(
        image_processor=transformers.AutoImageProcessor.from_pretrained(path, backend="pil"),
        tokenizer=transformers.AutoTokenizer.from_pretrained(path),
        chat_template=(path / "chat_template.jinja").read_text(),
        **words,
    )


def model(path: Path) -> Any:
    import transformers

    return transformers.AutoModelForImageTextToText.from_pretrained(path).eval()


def inputs(kind: Any, conversation: list[dict[str, Any]], pictures: Sequence[bytes]) -> Any:
    """What the processor makes of a conversation whose pictures come as one flat list."""
    text = kind.apply_chat_template(conversation, add_generation_prompt=True)
    images = [Image.open(BytesIO(data)) for data in pictures] or None
    return kind(text=text, images=images, return_tensors="pt")


def image_rows(network: Any, given: Any) -> NDArray[np.float32]:
    """Embedding rows of all pictures, one behind the other."""
    import torch

    names = ("pixel_values", "image_sizes", "batch_num_images")
    with torch.no_grad():
        found = network.model.get_image_features(**{name: given[name] for name in names if name in given})
    rows = [part.reshape(-1, part.shape[-1]) for part in found.pooler_output]
    return np.asarray(torch.cat(rows).numpy(), np.float32)


def text_model(path: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(path).eval()


def text_inputs(path: Path, text: str) -> dict[str, Any]:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    turn = [{"role": "user", "content": text}]
    return dict(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True))
