"""One other engine in a process of its own: transformers' generate or vLLM, told by lines of JSON what to generate.

Run as `python peer_engine.py transformers|vllm DIRECTORY THREADS` by an interpreter that has the engine; it needs
nothing of this repository. A line {"prompts": [[token]], "new_tokens": n} is answered by a line
{"seconds": s, "tokens": [[token]]}.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Generate = Callable[[list[list[int]], int], list[list[int]]]
MAX_TOKENS = 1024  # prompt and output; the questions are far shorter


def transformers_engine(directory: str, threads: int) -> Generate:
    """Greedy, left-padded batches, the whole output whatever it says."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            made = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        tokens: list[list[int]] = made[:, longest:].tolist()
        return tokens

    return generate


def vllm_engine(directory: str, threads: int) -> Generate:
    """vLLM's offline engine without its prefix cache: every round asks the same."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM, SamplingParams

    llm: Any = LLM(
        directory,
        dtype="float32",
        skip_tokenizer_init=True,
        max_model_len=MAX_TOKENS,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        params = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        made = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
        return [list(one.outputs[0].token_ids) for one in made]

    return generate


ENGINES: dict[str, Callable[[str, int], Generate]] = {"transformers": transformers_engine, "vllm": vllm_engine}


def serve(name: str, directory: str, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the engine prints is for people
    os.environ["HF_HUB_OFFLINE"] = "1"
    generate = ENGINES[name](directory, threads)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        tokens = generate(asked["prompts"], asked["new_tokens"])
        print(json.dumps({"seconds": time.perf_counter() - started, "tokens": tokens}), file=answers)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
