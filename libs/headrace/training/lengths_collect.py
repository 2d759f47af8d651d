"""Asks the default model thousands of questions and writes down how long its answers are.

`python -m headrace.training.lengths_collect --prompts DIR --out FILE`: greedy answers of at most 512 tokens by the onnx
engine. Sources take turns, so a run that is cut short has seen all of them; run again with the same files, it goes on
where it stopped.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from headrace.core.types import Key, Sampling
from headrace.engines.artifacts import cache_root
from headrace.engines.base import SequenceInput
from headrace.engines.families import ChatMessage, TextPart
from headrace.engines.families.smollm2 import SPEC, SmolLM2, checkpoint, load
from headrace.engines.kvcache import Kv
from headrace.engines.onnx import OnnxEngine
from headrace.engines.onnx_model import LayersDone, Llama, graph_folder
from headrace.engines.sampling import Logits
from headrace.predictor.probe import states_of
from headrace.training.lengths_asked import own_prompts
from headrace.training.lengths_media import Asked, Studio
from headrace.training.lengths_rows import Row, read_about, read_all, read_texts, write_outputs

SEED = 0
MAX_TOKENS = 512
PROMPT_TOKENS_MAX = 1_500
_WRITE_EVERY_S = 120.0
_CHUNK_TOKENS = 8_192  # a prompt is prefilled in one step: its last hidden state comes with it
# How many of each source, and so how often its turn comes. ShareGPT's prompts are long: few pay.
QUOTAS = {
    "headrace": 1_150,
    "gpteacher_roleplay": 800,
    "codealpaca": 600,
    "alpaca_eval": 450,
    "vicuna80": 80,
    "mt_bench_gpt4ref": 60,
    "sharegpt_lmbench": 60,
    "image": 900,
    "audio": 200,
    "video": 150,
}


def main() -> None:
    options = _options()
    family = load()
    asked = questions(family, options.prompts, options.digits)
    _say(f"{len(asked)} questions")
    answers = Answers(options.out, options.states, asked)
    _say(f"{len(answers.rows)} of them answered before")
    until_s = time.monotonic() + 60 * options.minutes
    Collector(options.threads, options.slots, answers).run(asked[: options.most], until_s)
    answers.write()
    _say(json.dumps({"rows": len(answers.rows), "tokens": sum(row.output_tokens for row in answers.rows.values())}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace.training.lengths_collect", description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True, help="the folder with text_*.jsonl.gz")
    parser.add_argument("--digits", type=Path, help="the archive of the Free Spoken Digit Dataset, for sound")
    parser.add_argument("--out", type=Path, required=True, help="a .jsonl.gz")
    parser.add_argument("--states", type=Path, required=True, help="a .npz for the last hidden state of each prompt")
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--most", type=int, default=None, help="questions")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slots", type=int, default=16)
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def questions(family: SmolLM2, folder: Path, recordings: Path | None) -> list[Asked]:
    """All sources in turn, each spread evenly over the whole."""
    prompts: dict[str, list[str]] = {"headrace": own_prompts(QUOTAS["headrace"], SEED)}
    for row in read_texts(folder):
        prompts.setdefault(row.source, []).append(row.prompt)
    asked: list[tuple[float, Asked]] = []
    for source, found in sorted(prompts.items()):
        distinct = sorted(set(found))
        Random(SEED).shuffle(distinct)
        texts = _texts(family, source, distinct[: QUOTAS[source]])
        asked += [((i + 0.5) / len(texts), one) for i, one in enumerate(texts)]
    studio = Studio(family, recordings, SEED)
    for source, draw in (("image", studio.about_images), ("video", studio.about_video), ("audio", studio.about_sound)):
        drawn = [draw() for _ in range(QUOTAS[source])]
        asked += [((i + 0.5) / len(drawn), one) for i, one in enumerate(drawn) if one is not None]
    return [one for _, one in sorted(asked, key=lambda pair: pair[0])]


def _texts(family: SmolLM2, source: str, texts: Sequence[str]) -> list[Asked]:
    rendered = [(text, family.render([ChatMessage("user", (TextPart(text),))], [])) for text in texts]
    return [Asked(source, text, prompt) for text, prompt in rendered if len(prompt.tokens) <= PROMPT_TOKENS_MAX]


class ListeningLlama(Llama):
    """Keeps the logits of every prompt that was prefilled, in order, until they are taken."""

    heard: list[Logits]

    def prefill(self, rows: NDArray[np.float32], kv: Kv, start: int, layers_done: LayersDone | None = None) -> Logits:
        logits = super().prefill(rows, kv, start, layers_done)
        self.heard.append(logits)
        return logits

    def prefill_packed(self, prompts: Sequence[NDArray[np.float32]], past: Kv) -> tuple[Logits, Kv]:
        logits, kv = super().prefill_packed(prompts, past)
        self.heard.append(logits)
        return logits, kv

    def take(self) -> Logits:
        """Logits [prompts, vocab] since the last time."""
        taken = np.concatenate(self.heard)
        self.heard = []
        return taken


class Answers:
    """What was answered so far, by the question's place, and the two files that keep it. Where the states are missing
    their prompts are prefilled again.

    Raises:
        ValueError: they hold answers to other questions.
    """

    def __init__(self, out: Path, states: Path, asked: Sequence[Asked]) -> None:
        self._out, self._states_file = out, states
        self.rows: dict[int, Row] = {}
        self.states: dict[int, NDArray[np.float16]] = {}
        if not out.exists():
            return
        rows = read_all(out, SPEC.name, [one.text for one in asked])
        for place, row in zip(read_about(out)["places"], rows, strict=True):
            if row is None or row.prompt != asked[place].text:
                raise ValueError(
                    f"{out} answers other questions: name a new file, or the prompts that it was made with"
                )
            self.rows[place] = row
        if states.exists():
            with np.load(states) as arrays:
                self.states = dict(zip(arrays["places"].tolist(), arrays["states"], strict=True))

    def done(self, place: int) -> bool:
        return place in self.rows and place in self.states

    def write(self) -> None:
        order, known = sorted(self.rows), sorted(self.states)
        about = {
            "what": "output lengths of smollm2-135m: greedy, chat template",
            "max_tokens": MAX_TOKENS,
            "seed": SEED,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "command": "python -m headrace.training.lengths_collect",
            "places": order,
        }
        write_outputs(self._out, about, [self.rows[place] for place in order])
        np.savez(self._states_file, places=np.array(known), states=np.stack([self.states[place] for place in known]))


@dataclass(slots=True)
class _Running:
    asked: Asked
    index: int
    tokens: int = 0


class Collector:
    """The engine with as many questions at once as it has slots."""

    def __init__(self, threads: int, slots: int, answers: Answers) -> None:
        source = checkpoint()
        folder = graph_folder(source, cache_root())
        self._llama = ListeningLlama(folder, source.shape, threads)
        self._llama.heard = []
        self._head = np.load(folder / "embed.npy")
        blocks = slots * (PROMPT_TOKENS_MAX + MAX_TOKENS) // SPEC.block_tokens
        self._engine = OnnxEngine(SPEC, source, self._llama, slots=slots, blocks=blocks, chunk_tokens=_CHUNK_TOKENS)
        self._running: dict[Key, _Running] = {}
        self._states: dict[int, NDArray[np.float16]] = {}
        self._answers = answers
        self._tokens = 0

    def run(self, asked: Sequence[Asked], until_s: float) -> None:
        """Ask what has no answer yet; no question starts after `until_s`, those begun end."""
        waiting = iter([(i, one) for i, one in enumerate(asked) if not self._answers.done(i)])
        started = time.monotonic()
        written_s = started
        while self._add(waiting, until_s) or self._running:
            self._step()
            if time.monotonic() > written_s + _WRITE_EVERY_S:
                written_s = time.monotonic()
                self._answers.write()
                rate = self._tokens / (written_s - started)
                _say(f"  {len(self._answers.rows)} of {len(asked)} answered, {rate:.0f} tok/s")

    def _add(self, waiting: Iterator[tuple[int, Asked]], until_s: float) -> bool:
        """Fill the free slots; False if no question is left or the time is over."""
        while self._engine.slots_used() < self._engine.slots:
            if time.monotonic() > until_s or (following := next(waiting, None)) is None:
                return False
            index, asked = following
            key, prompt = Key(str(index), 1), asked.prompt
            self._running[key] = _Running(asked, index)
            sampling = Sampling(max_tokens=1 if index in self._answers.rows else MAX_TOKENS)
            count = len(prompt.tokens)
            self._engine.add(
                SequenceInput(key, prompt.tokens, count, prompt.spans, asked.embeddings, prompt.prefix, sampling)
            )
        return True

    def _step(self) -> None:
        result = self._engine.step()
        if result.prefilled:
            states = states_of(self._llama.take(), self._head)
            assert len(states) == len(result.prefilled), "a prompt was prefilled in more than one step"
            for ended, state in zip(result.prefilled, states, strict=True):
                self._states[self._running[ended.key].index] = state
        for token in result.emitted:
            running = self._running[token.key]
            stopped = token.token in SPEC.eos_ids
            running.tokens += 1
            self._tokens += 1
            if stopped or running.tokens == MAX_TOKENS or running.index in self._answers.rows:
                self._engine.remove(token.key)
                self._ended(self._running.pop(token.key), stopped)

    def _ended(self, running: _Running, stopped: bool) -> None:
        asked = running.asked
        self._answers.states[running.index] = self._states.pop(running.index)
        if running.index in self._answers.rows:
            return
        self._answers.rows[running.index] = Row(
            asked.source,
            asked.text,
            running.tokens,
            SPEC.name,
            stopped,
            len(asked.prompt.tokens) - sum(span.length for span in asked.prompt.spans),
            asked.parts,
            asked.media_tokens,
        )


if __name__ == "__main__":
    main()
