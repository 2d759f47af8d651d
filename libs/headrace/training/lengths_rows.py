"""Prompts with the lengths of their answers: what the length predictor is trained and judged on, and how it is split.

Sources with a licence that keeps heads trained on them from being shipped are marked; they serve research figures.
"""

import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from headrace.engines.families.smollm2 import SPEC

Split = Literal["train", "validation", "test"]
TEXTS, ALPACA_EVAL = "text_prompts_output_lengths.jsonl.gz", "text_alpacaeval_805prompts_lengths.jsonl.gz"
ASSETS = Path(__file__).parents[1] / "assets" / "lengths"
TEXTS_FILE, OUTPUTS_FILE = "texts.jsonl.gz", "outputs.jsonl.gz"  # what the shipped heads learnt from
_TENTHS: dict[int, Split] = {0: "test", 1: "test", 2: "validation"}


@dataclass(frozen=True, slots=True)
class Source:
    licence: str
    shippable: bool  # whether shipped heads may be trained on it, and its prompts stored here


SOURCES: dict[str, Source] = {
    "codealpaca": Source("CC-BY-NC-4.0", False),
    "alpaca_eval": Source("CC-BY-NC-4.0", False),
    "sharegpt_lmbench": Source("the repository is Apache-2.0, the conversations have no clear licence", False),
    "gpteacher_roleplay": Source("MIT", True),
    "mt_bench_gpt4ref": Source("Apache-2.0", True),
    "vicuna80": Source("Apache-2.0", True),
    "headrace": Source("Apache-2.0, this project's own wordings", True),
    "image": Source("Apache-2.0, this project's own questions", True),
    "audio": Source("Apache-2.0, this project's own questions", True),
    "video": Source("Apache-2.0, this project's own questions", True),
}


@dataclass(frozen=True, slots=True)
class Row:
    source: str
    prompt: str  # the last user turn
    output_tokens: int
    model: str = ""  # who answered; empty: the median of several
    stopped: bool = True  # False: cut off, the answer would have been longer
    prompt_tokens: int = 0  # 0: not counted
    parts: tuple[tuple[str, int], ...] = ()  # (modality, how many)
    media_tokens: int = 0

    @property
    def split(self) -> Split:
        return split_of(self.prompt)


def digest_of(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def split_of(prompt: str) -> Split:
    """Seven tenths for training, one for validation, two for the test: by the prompt, whoever answered it."""
    return _TENTHS.get(int(digest_of(prompt)[:8], 16) % 10, "train")


def read_texts(folder: Path) -> list[Row]:
    """The rows of both text files, one for each (prompt, model) that answered.

    Raises:
        FileNotFoundError: the folder lacks one of them.
    """
    rows = []
    for line in _lines(folder / TEXTS):
        source, _, model = line["source"].partition(":")
        rows.append(Row(source, line["prompt"], max(1, line["output_tokens"]), model or _WRITERS.get(source, "")))
    for line in _lines(folder / ALPACA_EVAL):
        for model, tokens in line["output_tokens_by_model"].items():
            rows.append(Row("alpaca_eval", line["prompt"], max(1, tokens), model))
    return rows


# Who wrote a source's answers, as far as it says so.
_WRITERS = {"mt_bench_gpt4ref": "gpt-4", "codealpaca": "davinci", "gpteacher_roleplay": "gpteacher"}


def medians(rows: Iterable[Row]) -> list[Row]:
    """One row for each prompt of a source: prompts that several models answered get their median, and no model."""
    answers: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        answers[row.source, row.prompt].append(row)
    return [
        same[0] if len(same) == 1 else Row(source, prompt, round(median(row.output_tokens for row in same)))
        for (source, prompt), same in answers.items()
    ]


def write_outputs(path: Path, about: dict[str, Any], rows: Iterable[Row]) -> None:
    """A model's own answers: a line about the run, then one a row. Prompts that may not be passed on are left out;
    their digest finds them again in the data that they come from."""
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        for line in ({**about}, *(_line(row) for row in rows)):
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Prompts and answers' lengths of sources that may be passed on."""
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        for row in rows:
            assert SOURCES[row.source].shippable, f"{row.source} may not be passed on"
            line = {"source": row.source, "prompt": row.prompt, "tokens": row.output_tokens, "model": row.model}
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def read_rows(path: Path) -> list[Row]:
    return [Row(line["source"], line["prompt"], line["tokens"], line["model"]) for line in _lines(path)]


def _line(row: Row) -> dict[str, Any]:
    prompt = {"prompt": row.prompt} if SOURCES[row.source].shippable else {}
    counts = {"prompt_tokens": row.prompt_tokens, "output_tokens": row.output_tokens, "stopped": row.stopped}
    media = {"parts": row.parts, "media_tokens": row.media_tokens} if row.parts else {}
    return {"source": row.source, "digest": digest_of(row.prompt)[:16], **prompt, **counts, **media}


def read_about(path: Path) -> dict[str, Any]:
    """The line about the run that write_outputs wrote first."""
    return next(_lines(path))


def read_all(path: Path, model: str, prompts: Iterable[str] = ()) -> list[Row | None]:
    """What write_outputs wrote, in its order; None where the prompt is neither in the file nor among `prompts`.

    Raises:
        FileNotFoundError: no such file.
    """
    known = {digest_of(prompt)[:16]: prompt for prompt in prompts}
    rows: list[Row | None] = []
    for line in list(_lines(path))[1:]:
        prompt = line.get("prompt", known.get(line["digest"]))
        counts = line["output_tokens"], model, line["stopped"], line["prompt_tokens"]
        parts = tuple((modality, count) for modality, count in line.get("parts", ()))
        row = None if prompt is None else Row(line["source"], prompt, *counts, parts, line.get("media_tokens", 0))
        rows.append(row)
    return rows


def read_outputs(path: Path, model: str, prompts: Iterable[str] = ()) -> list[Row]:
    """Those of read_all whose prompt is known."""
    return [row for row in read_all(path, model, prompts) if row is not None]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def shipped_rows(assets: Path = ASSETS, outputs: Path | None = None) -> list[Row]:
    """What shipped heads may learn from: the default model's answers to free prompts, and free sources' answers."""
    own = [row for row in read_outputs(outputs or assets / OUTPUTS_FILE, SPEC.name) if SOURCES[row.source].shippable]
    return [*read_rows(assets / TEXTS_FILE), *own]
