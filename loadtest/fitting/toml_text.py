"""How a profile is written: TOML by hand, so that comments stand beside the numbers that they are about."""

from collections.abc import Iterable

from loadtest.fitting.llms import LlmProfile, Part
from loadtest.fitting.shapes import Llm

HEADER = "# Written by `python -m loadtest.fitting`; the sources of every group of numbers stand in [sources].\n"
PHASES = (
    ("tokens", "tokens_s between its points"),
    ("prefill", "whole prompts, 1 to 32 of 64 to 8,192 tokens"),
    ("decode", "1 to 512 sequences that look back at 128 to 16,384 tokens, as far as they fit"),
)


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.3e}" if value else "0.0"


def numbers(values: Iterable[float]) -> str:
    return f"[{', '.join(number(value) for value in values)}]"


def wholes(values: Iterable[float]) -> str:
    return f"[{', '.join(str(int(value)) for value in values)}]"


def sources(known: dict[str, str]) -> str:
    return "[sources]\n" + "".join(f'{name} = "{text}"\n' for name, text in known.items())


def llm_text(profile: LlmProfile) -> str:
    llm = profile.llm
    head = [f"# {llm.title} on {profile.gpu}, bf16.\n", HEADER, *_fit_comment(profile)]
    top = f'title = "{llm.title}"\nkind = "llm"\ngpu = "{profile.gpu}"\n'
    return "\n".join(
        ["".join(head) + top, sources(profile.sources), _model(llm), *(_part(llm, p) for p in profile.parts)]
    )


def _fit_comment(profile: LlmProfile) -> Iterable[str]:
    if not profile.parts[0].errors:
        yield "# Scaled from another GPU: a starting point, nothing was measured.\n"
        return
    yield "# Relative errors against composed kernel times: median / largest of the fitted points, then held out.\n"
    for phase, what in PHASES:
        cells = []
        for part in profile.parts:
            inside, most, outside, worst = (f"{100 * error:.1f}" for error in part.errors[phase])
            cells.append(f"tp{part.gpus} {inside} / {most} %, {outside} / {worst} %")
        yield f"#   {phase} ({what}): {'; '.join(cells)}\n"


def _model(llm: Llm) -> str:
    note = f"; {llm.note}" if llm.note else ""
    cross = f"cross_layers = {llm.cross}\n" if llm.cross else ""
    cross_kv = f"cross_kv_bytes_per_token = {llm.cross_kv_bytes_per_token}\n" if llm.cross else ""
    return (
        f'[model]\nsource = "[R] the shapes of its published config.json{note}; bytes follow from them"\n'
        f"layers = {llm.layers}\n{cross}hidden = {llm.hidden}\nheads = {llm.heads}\nkv_heads = {llm.kv_heads}\n"
        f"head_dim = {llm.qk_dim}\nintermediate = {llm.intermediate}\nvocabulary = {llm.vocabulary}\n"
        f"context_tokens = {llm.context_tokens}\n"
        f"kv_bytes_per_token = {llm.kv_bytes_per_token} # self layers x 2 x KV heads x head_dim x 2 bytes\n{cross_kv}"
        f"weights_bytes = {llm.weights_bytes}\n"
    )


def _part(llm: Llm, part: Part) -> str:
    step = part.step
    lines = [
        f"[tp{part.gpus}]",
        f"gpus = {part.gpus}",
        f"tokens = {wholes(step.tokens_s.xs)} # see sources.time",
        f"tokens_s = {numbers(step.tokens_s.ys)}",
        f"decode_sequence_s = {number(step.decode_sequence_s)}",
        f"prefill_pair_s = {number(step.prefill_pair_s)} # see sources.attention",
        f"decode_context_token_s = {number(step.decode_context_token_s)}",
    ]
    if llm.cross:
        lines += [
            f"cross_token_s = {number(step.cross_token_s)}",
            f"cross_pair_s = {number(step.cross_pair_s)}",
            f"decode_cross_token_s = {number(step.decode_cross_token_s)}",
        ]
    lines += [
        f"kv_room_bytes = {part.kv_room_bytes} # see sources.memory",
        f"chunk_tokens = {part.chunk_tokens}",
        "block_tokens = 16",
        f"load_cold_s = {part.load_cold_s:.1f} # see sources.load",
        f"load_warm_s = {part.load_warm_s:.2f}",
    ]
    return "\n".join(lines) + "\n"
