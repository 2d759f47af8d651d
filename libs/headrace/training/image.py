"""Rebuilds the image adapter from packaged data alone: `python -m headrace.training [--out DIR]`.

Each stage leaves a checkpoint in --work and is skipped when it is there, so a stopped run goes on where it was.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from headrace.engines.families.smollm2 import WIDTH, SmolLM2, load, load_weights, weights_path
from headrace.training.alignment import align, captions, nearest_word_shares
from headrace.training.batches import Sampler
from headrace.training.export import export
from headrace.training.llama import FrozenLlama
from headrace.training.pictures import draw_digits, draw_shapes
from headrace.training.prefix import Adapter, Phase, Trainer, evaluate, start
from headrace.training.tower import Projector, Tower, features, make_pool, train_tower

SEED = 0
# What an answer is made of is soon learnt; its exact form takes the second, longer phase of smaller steps.
PHASES = (Phase(160, 1.0, 800, 0.38), Phase(300, 0.6, 560, 0.55))
ASSETS = Path(__file__).parents[1] / "assets" / "smollm2"
_VALIDATION_SEED = 7
_LOG_STEPS = 20  # also how much a stopped run loses


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    phases = [replace(phase, steps=steps) for phase, steps in zip(PHASES, options.steps, strict=False)]
    run = Run(options.work, options.out)
    tower = run.tower(options.tower_steps)
    adapter = run.aligned(tower, options.align_steps)
    for number, phase in enumerate(phases, 1):
        if run.phase(adapter, phase, number) or number == len(phases):
            run.export(tower, adapter, phases[:number])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace.training", description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS, help="where the assets go")
    parser.add_argument("--work", type=Path, default=Path(".headrace/training"), help="checkpoints and log")
    parser.add_argument("--tower-steps", type=int, default=800)
    parser.add_argument("--align-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, nargs="+", default=[phase.steps for phase in PHASES])
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class Run:
    """One training run: its data, its checkpoints, its log."""

    def __init__(self, work: Path, out: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._work, self._out, self._started = work, out, time.monotonic()
        self._family: SmolLM2 = load()
        self._model = FrozenLlama(load_weights(weights_path()))
        self._train = make_pool(draw_digits("train", 10, 1) + draw_shapes("train", 8000, 1))
        self._validation = make_pool(draw_digits("validation", 3, 2) + draw_shapes("validation", 400, 2))
        self._figures: dict[str, object] = {}
        self.log("data", train=len(self._train.labels), validation=len(self._validation.labels))

    def log(self, event: str, **values: object) -> None:
        line = json.dumps({"event": event, "elapsed_s": round(time.monotonic() - self._started), **values})
        print(line, file=sys.stderr, flush=True)
        with (self._work / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def tower(self, steps: int) -> Tower:
        path, tower = self._work / "tower.pt", Tower()
        if not path.exists():
            torch.save(train_tower(self._train, self._validation, steps, SEED, self.log).state_dict(), path)
        tower.load_state_dict(torch.load(path))
        tower.eval()
        self._features = {pool: features(tower, getattr(self, f"_{pool}")) for pool in ("train", "validation")}
        self._figures["tower_steps"] = steps
        return tower

    def aligned(self, tower: Tower, steps: int) -> Adapter:
        model, family = self._model, self._family
        projector = Projector(WIDTH, model.embedding_rms)
        path = self._work / "aligned.pt"
        if not path.exists():
            targets = captions(family, self._train.labels)
            mse = align(projector, self._features["train"], targets, model.embedding, steps, SEED)
            self.log("aligned", mse=round(mse, 4), nearest_word=self._nearest(projector))
            torch.save(projector.state_dict(), path)
        projector.load_state_dict(torch.load(path))
        self._figures |= {"align_steps": steps, "nearest_word": self._nearest(projector)}
        return start(model, family, projector)

    def _nearest(self, projector: Projector) -> list[float]:
        targets = captions(self._family, self._validation.labels)
        return nearest_word_shares(projector, self._features["validation"], targets, self._model.embedding)

    def phase(self, adapter: Adapter, phase: Phase, number: int) -> bool:
        """Train a phase to its end, from its checkpoint if there is one; False if it had ended before.

        New draws follow a resumed step.
        """
        path = self._work / f"phase-{number}.pt"
        trainer = Trainer(self._model, adapter, adapter.embed(self._features["train"]), phase)
        if path.exists():
            trainer.take_up(torch.load(path))
        seed = SEED + 1_000_000 * number + trainer.step
        sampler = Sampler(self._family, self._train.labels, seed, single_share=phase.single_share)
        batches = sampler.batches(phase.token_budget)
        ended = trainer.step >= phase.steps
        while trainer.step < phase.steps:
            loss = trainer.run(batches, min(_LOG_STEPS, phase.steps - trainer.step))
            self.log("step", phase=number, step=trainer.step, of=phase.steps, loss=round(loss, 4))
            torch.save(trainer.state(), path)
        return not ended

    def export(self, tower: Tower, adapter: Adapter, phases: list[Phase]) -> None:
        figures = self.validate(adapter)
        self.log("validated", **figures)
        manifest = {
            "what": "image adapter of smollm2-135m: tower, projector, begin and end vectors, prefix KV",
            "command": " ".join(["python -m headrace.training", *sys.argv[1:]]),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "seed": SEED,
            "phases": [asdict(phase) for phase in phases],
            **self._figures,
            "validation": figures,
        }
        export(tower, adapter, manifest, self._out)

    def validate(self, adapter: Adapter) -> dict[str, object]:
        pool, images = self._validation, self._features["validation"]
        return {
            name: evaluate(self._model, adapter, images, Sampler(self._family, pool.labels, _VALIDATION_SEED, unseen))
            for name, unseen in (("trained_wordings", False), ("unseen_wordings", True))
        }


if __name__ == "__main__":
    main()
