"""vLLM's way to fill an iteration, over the same step costs: what its admission and ours make of one run.

After vLLM's v1 scheduler (vllm/v1/core/sched/scheduler.py [R]): sequences that run come first, the rest of the token
budget goes to prompts in any size of chunk; blocks are taken as a sequence grows; where none is free, the sequence
that came last loses all of its own and is computed again. Without prefix caching: prompts' tokens are not known.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from headrace.core.cost import StepCost, StepWork
from headrace.core.stages.kv import blocks_for
from loadtest.benches.vllm_requests_data import MeasuredRun, Times
from loadtest.benches.vllm_requests_run import Setting
from loadtest.benches.vllm_requests_subjects import BLOCK_TOKENS, Subject


@dataclass(slots=True, eq=False)
class Sequence:
    row: int
    prompt: int
    last: int  # prompt and output
    length: int  # tokens so far
    computed: int = 0  # of them, with KV
    blocks: int = 0
    now: int = 0  # tokens in this iteration


class Scheduler:
    def __init__(self, slots: int, kv_tokens: int, budget: int) -> None:
        self.slots = slots
        self.free = kv_tokens // BLOCK_TOKENS
        self.budget = budget
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of their coming
        self.preemptions = 0

    def schedule(self) -> list[Sequence]:
        """Who computes in this iteration, `now` tokens each."""
        chosen: list[Sequence] = []
        left, at, preempted = self.budget, 0, False
        while at < len(self.running) and left:
            sequence = self.running[at]
            wanted = min(sequence.length - sequence.computed, left)
            while not self._grow(sequence, wanted):
                preempted = True
                if self._preempt() is sequence:
                    return chosen
            sequence.now = wanted
            left -= wanted
            chosen.append(sequence)
            at += 1
        while self.waiting and left and not preempted and len(self.running) < self.slots:
            sequence = self.waiting[0]
            wanted = min(sequence.length, left)
            if not self._grow(sequence, wanted):
                break
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.now = wanted
            left -= wanted
            chosen.append(sequence)
        return chosen

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        more = blocks_for(sequence.computed + tokens, BLOCK_TOKENS) - sequence.blocks
        if more > self.free:
            return False
        if more > 0:
            self.free -= more
            sequence.blocks += more
        return True

    def _preempt(self) -> Sequence:
        """The last to come waits again, before all others."""
        victim = self.running.pop()
        self.release(victim)
        self.waiting.appendleft(victim)
        self.preemptions += 1
        return victim

    def release(self, sequence: Sequence) -> None:
        self.free += sequence.blocks
        sequence.blocks = sequence.computed = 0


def vllm_like(subject: Subject, run: MeasuredRun, setting: Setting) -> Times:
    """The run under that scheduler; KV tokens are the memory's own."""
    return _served(Scheduler(subject.slots, setting.kv_tokens, setting.chunk_tokens), run, setting.step)


def preemptions(subject: Subject, run: MeasuredRun, setting: Setting) -> int:
    """How often a sequence lost its KV."""
    scheduler = Scheduler(subject.slots, setting.kv_tokens, setting.chunk_tokens)
    _served(scheduler, run, setting.step)
    return scheduler.preemptions


def _served(scheduler: Scheduler, run: MeasuredRun, step: StepCost) -> Times:
    first_s, end_s = np.full(len(run), np.nan), np.full(len(run), np.nan)
    now_s, come, ended = 0.0, 0, 0
    while ended < len(run):
        if not scheduler.running and not scheduler.waiting:
            now_s = max(now_s, float(run.arrival_s[come]))
        while come < len(run) and run.arrival_s[come] <= now_s:
            prompt = int(run.input_tokens[come])
            scheduler.waiting.append(Sequence(come, prompt, prompt + int(run.output_tokens[come]), prompt))
            come += 1
        chosen = scheduler.schedule()
        assert chosen, "a sequence alone is larger than the memory"
        now_s += step.step_s(_work(chosen))
        for sequence in chosen:
            sequence.computed += sequence.now
            if sequence.computed < sequence.length:
                continue
            if sequence.length == sequence.prompt:
                first_s[sequence.row] = now_s
            sequence.length += 1
            if sequence.length == sequence.last:
                end_s[sequence.row] = now_s
                scheduler.running.remove(sequence)
                scheduler.release(sequence)
                ended += 1
    gaps = np.maximum(run.output_tokens - 1, 1)
    return Times(first_s - run.arrival_s, (end_s - first_s) / gaps, end_s - run.arrival_s, end_s)


def _work(chosen: list[Sequence]) -> StepWork:
    """One token of a sequence whose other tokens have KV is decoding; all else is prefill."""
    tokens = pairs = sequences = context = 0
    for sequence in chosen:
        if sequence.now == 1 and sequence.length > sequence.prompt:
            sequences += 1
            context += sequence.computed + 1
        else:
            tokens += sequence.now
            pairs += sequence.now * (2 * sequence.computed + sequence.now + 1) // 2
    return StepWork(tokens, pairs, sequences, context)
