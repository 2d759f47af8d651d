"""Runs the vLLM engine on a directory and tells what came out as JSON: for an interpreter with vLLM, without pytest.

VLLM_PYTHON tests/engines/vllm_driving.py DIRECTORY
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from headrace.core.errors import StageError
from headrace.core.types import Key, MediaSpan, Sampling
from headrace.engines import grammar
from headrace.engines.base import Engine, SequenceInput
from headrace.engines.registry import load_engine

COUNT = 12
GREEDY = Sampling(COUNT, ignore_eos=True)
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 23]}}, "required": ["a"], "additionalProperties": False}
# Prompts of different lengths, over and under a KV block of vLLM's; the last two begin alike for its prefix cache.
PROMPTS = [[40 + (7 * n + 3 * row) % 60 for n in range(length)] for row, length in enumerate((1, 5, 33, 64, 90))]
PROMPTS.append([*PROMPTS[-1][:70], 33, 34])


def sequence(row: int, sampling: Sampling, prompt: Sequence[int], emitted: Sequence[int] = ()) -> SequenceInput:
    return SequenceInput(Key(f"{row:032x}", 1), (*prompt, *emitted), len(prompt), (), (), "", sampling)


class Driver:
    """Adds a sequence before each step and removes each when it has its tokens, as a worker does."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.steps = 0
        self.cached: dict[int, int] = {}

    def run(self, sequences: Sequence[SequenceInput]) -> dict[int, list[Any]]:
        waiting, told = list(sequences), dict[int, list[Any]]()
        left = {sequence.key: sequence.sampling.max_tokens for sequence in sequences}
        bound = {sequence.key for sequence in sequences if sequence.sampling.grammar}
        while left:
            if waiting:
                self.engine.add(waiting.pop(0))
            result = self.engine.step()
            self.steps += 1
            self.cached |= {int(one.key.request_id, 16): one.cached_tokens for one in result.prefilled}
            for emitted in result.emitted:
                logprobs = emitted.logprobs and [emitted.logprobs.logprob, emitted.logprobs.top]
                told.setdefault(int(emitted.key.request_id, 16), []).append([emitted.index, emitted.token, logprobs])
                over = emitted.key in bound and emitted.token in self.engine.spec.eos_ids
                if over or emitted.index + 1 == left[emitted.key]:
                    self.engine.remove(emitted.key)
                    del left[emitted.key]
        return told


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except StageError as error:
        return error.message
    return ""


def main(directory: str) -> dict[str, Any]:
    engine = load_engine("vllm", directory, threads=1, slots=4, blocks=64)
    driver = Driver(engine)
    told = dict[str, Any]()
    told["greedy"] = driver.run([sequence(n, GREEDY, prompt) for n, prompt in enumerate(PROMPTS[:4])])
    told["logprobs"] = driver.run([sequence(0, Sampling(4, ignore_eos=True, logprobs=3), PROMPTS[2])])[0]
    told["cached"] = [driver.run([sequence(9, GREEDY, prompt)]) and driver.cached[9] for prompt in PROMPTS[4:]]
    emitted = [token for _, token, _ in told["greedy"][2]][:5]
    told["resumed"] = driver.run([sequence(2, GREEDY, PROMPTS[2], emitted)])[2]
    penalty = Sampling(COUNT, ignore_eos=True, repetition_penalty=1.8)
    told["penalised"] = driver.run([sequence(1, penalty, PROMPTS[1])])[1]
    warm = [Sampling(COUNT, temperature=1.5, seed=seed, ignore_eos=True) for seed in (5, 5, 6)]
    told["warm"] = [driver.run([sequence(3, sampling, PROMPTS[3])])[3] for sampling in warm]
    bound = Sampling(40, grammar=grammar.json_schema(SCHEMA))
    told["constrained"] = driver.run([sequence(5, bound, PROMPTS[1]), sequence(6, GREEDY, PROMPTS[3])])
    told["not_resumed"] = refused(lambda: engine.add(sequence(5, bound, PROMPTS[1], [40])))
    one = sequence(7, GREEDY, PROMPTS[0])
    engine.add(one)
    engine.step()
    used = (engine.slots_used(), engine.blocks_used())
    told["refused"] = [
        refused(lambda: engine.kv_manifest(one.key)),
        refused(lambda: engine.export_kv(one.key, memoryview(b""))),
        refused(lambda: engine.evict(one.key)),
        refused(lambda: engine.add(media())),
    ]
    engine.remove(one.key)  # in the middle
    told["used"] = [*used, engine.slots_used(), engine.blocks_used(), len(engine.step().emitted), engine.has_work()]
    return told


def media() -> SequenceInput:
    plain = sequence(8, GREEDY, PROMPTS[1])
    return SequenceInput(plain.key, plain.tokens, plain.prompt_len, (MediaSpan(0, 1, 2),), (), "", GREEDY)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
