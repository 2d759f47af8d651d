"""Whether the default model's answers are right, through a running mesh: 400 questions about pictures of known content,
and as many as there are data for about speech and video (answers_clips.py).

Pictures come from the split that training and tuning never see; an answer counts when it is right to the letter. Plain
text chat is compared with what transformers' `generate` said (tests/model/text_reference.json).
"""

import argparse
import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import httpx
from PIL import Image

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.engines.families import TextPart
from headrace.training.pictures import (
    COLORS,
    CORNERS,
    KINDS,
    Picture,
    Shape,
    Split,
    digit_indices,
    draw_digit,
    draw_shape,
)
from headrace.training.questions import Question, ask, draw_layout, message
from loadtest.benches import answers_clips
from loadtest.benches.report import finish, say

MODEL = "smollm2-135m"
SEED = 400
# (images, questions in trained wordings, questions in unseen wordings)
EXAM = ((1, 160, 60), (2, 50, 15), (3, 45, 13), (4, 35, 9), (6, 6, 2), (8, 4, 1))
MAX_TOKENS = 64
CONCURRENCY = 4
TIMEOUT_S = 120.0
REFERENCE = Path(__file__).parents[2] / "tests" / "model" / "text_reference.json"


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its pictures, ready to be sent."""

    question: Question
    images: int
    unseen: bool
    content: list[dict[str, Any]]

    @property
    def group(self) -> str:
        if self.unseen:
            return "unseen_wordings"
        return "single_image" if self.images == 1 else "multi_image"


def exam(split: Split, share: float) -> list[Item]:
    """The questions, the same ones every time; a share keeps the first of each kind."""
    rng = Random(f"{split} {SEED}")
    items = []
    for images, trained, unseen in EXAM:
        for kept, total, words in ((trained * share, trained, False), (unseen * share, unseen, True)):
            items += [_item(split, images, words, rng) for _ in range(total)][: round(kept)]
    return items


def _item(split: Split, images: int, unseen: bool, rng: Random) -> Item:
    pictures = _pictures(split, images, rng)
    question = ask([picture.label for picture in pictures], rng, unseen)
    turn = message(question.text, images, draw_layout(images, rng), rng)
    content = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else _image_part(pictures[part.index])
        for part in turn.parts
    ]
    return Item(question, images, unseen, content)


def _pictures(split: Split, images: int, rng: Random) -> list[Picture]:
    only_digits = rng.random() < 0.6
    indices = digit_indices(split)
    pictures = []
    for _ in range(images):
        if only_digits or (images > 1 and rng.random() < 0.4):
            pictures.append(draw_digit(int(rng.choice(indices)), rng, distort=False))
        else:
            label = Shape(rng.choice(list(COLORS)), rng.choice(KINDS), rng.choice(CORNERS))
            pictures.append(draw_shape(label, rng))
    return pictures


def _image_part(picture: Picture) -> dict[str, Any]:
    out = BytesIO()
    Image.fromarray(picture.pixels).save(out, "PNG")
    url = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


class Asker:
    """Asks a mesh over HTTP, a few questions at a time."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._at_once = asyncio.Semaphore(CONCURRENCY)
        self._asked = 0

    async def answer(self, content: str | list[dict[str, Any]], max_tokens: int) -> str:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        async with self._at_once:
            reply = await self._client.post("/v1/chat/completions", json=body)
        if reply.status_code != 200:
            raise RuntimeError(f"the mesh answered {reply.status_code}: {reply.text[:300]}")
        self._asked += 1
        if self._asked % 50 == 0:
            say(f"  {self._asked} answered")
        text: str = reply.json()["choices"][0]["message"]["content"]
        return text


async def examine(url: str, split: Split, share: float) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
        asker = Asker(client)
        items = exam(split, share)
        say(f"{len(items)} questions about pictures of the {split} split")
        answers = await asyncio.gather(*(asker.answer(item.content, MAX_TOKENS) for item in items))
        if split != "test":  # mistakes on the test split stay unseen, or it would soon be one more validation split
            _say_mistakes(zip(items, answers, strict=True))
        right = [answer == item.question.answer for item, answer in zip(items, answers, strict=True)]
        clips = await _clips(asker, split, share)
        return {**_figures(items, right), **clips, "split": split, **await _text(asker, share)}


async def _clips(asker: Asker, split: Split, share: float) -> dict[str, Any]:
    missing = answers_clips.why_not()
    rng = Random(f"clips {split}")
    items = answers_clips.video_items(split, share, lambda count: _pictures(split, count, rng))
    if missing:
        say(f"no questions about speech: {missing}")
    else:
        items += answers_clips.speech_items(split, share, lambda count: _pictures(split, count, rng), _image_part)
    say(f"{len(items)} questions about speech and video of the {split} split")
    answers = await asyncio.gather(*(asker.answer(item.content, MAX_TOKENS) for item in items))
    right = [answer == item.question.answer for item, answer in zip(items, answers, strict=True)]
    if split != "test":
        for item, answer in zip(items, answers, strict=True):
            if answer != item.question.answer:
                say(f"  {item.group}, {item.question.text!r}: {answer!r}, right is {item.question.answer!r}")
    return answers_clips.figures(items, right)


def _say_mistakes(answered: Iterable[tuple[Item, str]]) -> None:
    for item, answer in answered:
        if answer != item.question.answer:
            say(f"  {item.images} images, {item.question.text!r}: {answer!r}, right is {item.question.answer!r}")


def _figures(items: list[Item], right: list[bool]) -> dict[str, Any]:
    groups: dict[str, list[bool]] = {"single_image": [], "multi_image": [], "unseen_wordings": []}
    kinds: dict[str, list[bool]] = {}
    counts: dict[str, list[bool]] = {}
    for item, ok in zip(items, right, strict=True):
        groups[item.group].append(ok)
        if not item.unseen:
            kinds.setdefault(item.question.kind, []).append(ok)
            counts.setdefault(f"{item.images}_images", []).append(ok)
    return {
        **{name: _share(values) for name, values in groups.items()},
        "by_question": {name: _share(values) for name, values in sorted(kinds.items())},
        "by_images": {name: _share(values) for name, values in counts.items()},
        "counts": {name: len(values) for name, values in {**groups, **dict(sorted(kinds.items()))}.items()},
    }


def _share(values: list[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


async def _text(asker: Asker, share: float) -> dict[str, Any]:
    """Plain chat, word for word; what differs is listed, for a near-tie of two logits would show here first."""
    reference = json.loads(REFERENCE.read_text())
    known = reference["answers"][: max(4, round(share * len(reference["answers"])))]
    made = await asyncio.gather(*(asker.answer(item["prompt"], reference["max_tokens"]) for item in known))
    differs = [item["prompt"] for item, text in zip(known, made, strict=True) if text != item["text"]]
    return {"text_identical": not differs, "text_prompts": len(known), "text_differs": differs}


async def run(url: str, split: Split, share: float) -> dict[str, Any]:
    """Through the mesh at `url`, or through one of its own."""
    if url:
        return await examine(url, split, share)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
        async with Mesh(MeshConfig(data_dir=Path(directory)), progress=say) as mesh:
            return await examine(mesh.http_url, split, share)


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench answers", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="an eighth of the questions, under 60 s")
    parser.add_argument("--url", default="", help="a running mesh, http://HOST:PORT; without it one is started")
    parser.add_argument("--split", choices=["test", "validation"], default="test", help="validation: for tuning")
    args = parser.parse_args(argv)
    figures = asyncio.run(run(args.url, args.split, 1 / 8 if args.quick else 1.0))
    for name in ("single_image", "multi_image", "unseen_wordings", "speech", "video", "text_identical"):
        say(f"{name}: {figures[name]}")
    if args.json:
        finish("answers", argv, [SEED], figures)


if __name__ == "__main__":
    main()
