"""What transformers makes of the packaged model: reference tokens for the tests and for `headrace bench answers`.

`python -m headrace.training.reference --out tests/model` needs torch, transformers and accelerate; it loads the GGUF
file by transformers' own loader, so that nothing of ours is compared with itself.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from headrace.engines.families.smollm2 import weights_path

MAX_TOKENS = 48
PROMPTS = (
    "What is the capital of France? Answer in one sentence.",
    "List three fruits.",
    "Explain in two sentences why the sky is blue.",
    "Write a haiku about rivers.",
    "What is 12 + 30?",
    "Translate 'good morning' into Spanish.",
    "Name two animals that can fly.",
    "Who wrote Romeo and Juliet?",
    "Give me a short recipe for pancakes.",
    "What is the opposite of cold?",
    "Why do leaves change color in autumn?",
    "Write one sentence about a lighthouse.",
    "How many legs does a spider have?",
    "Suggest a name for a small brown dog.",
    "What does a mill race do?",
    "Say hello to Ada in a friendly way.",
)
SYSTEM = "Answer like a pirate."
# ASCII digits only: transformers' GGUF loader leaves out the digit splitting of SmolLM2's tokenizer.json, which shows
# at digits outside ASCII ("½") alone, because no merge joins ASCII digits.
TEXTS = (
    "Hello world",
    "123 and 4567, 3.14",
    "  spaces   \n\n\nlines\t tab\r\n",
    "naïve café 北京 😀 \u200d",
    "x=1;y=[2,3] # comment\n    return x['key']",
    "don't I'll we've SHE'S",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><repo_name>",
    "a  b   c",
    "Mixed123abc_under-score",
    "\u00a0nbsp \u3000wide",
    "",
    " ",
    "Ω≈ç√∫ ñandú Straße",
    "first image: second image: sixteenth image:",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m headrace.training.reference", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the two JSON files")
    out = parser.parse_args().out
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer

    path = weights_path()
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    ids = [{"text": text, "ids": tokenizer(text, add_special_tokens=False).input_ids} for text in TEXTS]
    _write(out / "tokenizer_reference.json", {"texts": ids, "chats": _chats(tokenizer)})
    _write(out / "text_reference.json", {"max_tokens": MAX_TOKENS, "answers": _answers(tokenizer)})


def _chats(tokenizer: Any) -> list[dict[str, object]]:
    turn = {"role": "user", "content": PROMPTS[0]}
    chats = [
        [turn],
        [{"role": "system", "content": SYSTEM}, turn],
        [turn, {"role": "assistant", "content": "It is Paris."}, {"role": "user", "content": "And of Italy?"}],
    ]
    return [{"messages": chat, "ids": _prompt_ids(tokenizer, chat)} for chat in chats]


def _prompt_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def _answers(tokenizer: Any) -> list[dict[str, object]]:
    import torch
    from transformers import AutoModelForCausalLM

    path = weights_path()
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32).eval()
    answers: list[dict[str, object]] = []
    torch.set_num_threads(1)
    for prompt in PROMPTS:
        ids = torch.tensor([_prompt_ids(tokenizer, [{"role": "user", "content": prompt}])])
        with torch.no_grad():
            made = model.generate(ids, max_new_tokens=MAX_TOKENS, do_sample=False)
        tokens = made[0, ids.shape[1] :].tolist()
        text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        answers.append({"prompt": prompt, "tokens": tokens, "text": text})
    return answers


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
