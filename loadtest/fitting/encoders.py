"""The profiles of the encoders: seconds a tile, by tensor parallelism, and what each model was calibrated on.

ModServe publishes shares of the time to first token (Fig. 5), not seconds, and no one FLOP model yields all of them:
a tower has its own seconds, and each model whose share is known a factor on them.
"""

from dataclasses import dataclass

from headrace.core.cost import StepCost, StepWork
from headrace.profiles.gpu import GpuCard
from headrace.profiles.model import ModelCard, model
from loadtest.fitting.llms import LlmProfile
from loadtest.fitting.shapes import Tower
from loadtest.fitting.tables import Tables
from loadtest.fitting.toml_text import HEADER, number, numbers, sources

FLOP_SHARE = 0.45  # of the tensor rate that a tower reaches, by inference
VIT_TILE_S = 0.07  # of 1601 rows, at the model's own four GPUs
# How many times faster than one GPU.
SPEEDUP = {
    "vit-h14": {1: 1.0, 2: 1.14, 4: 1.3, 8: 1.18},
    "siglip-400m": {1: 1.0, 2: 1.14, 4: 1.3, 8: 1.18},
    "internvit-6b": {1: 1.0, 2: 1.7, 4: 2.55, 8: 3.315},
}
SPEEDUP_SOURCE = {
    "vit-h14": "1.14, 1.3 and 1.18 times as fast on 2, 4 and 8 GPUs [I]; that 8 are slower than 4 [P] ModServe Fig. 9",
    "siglip-400m": "1.14, 1.3 and 1.18 times as fast on 2, 4 and 8 GPUs, as ViT-H [I]",
    "internvit-6b": "1.7 and 1.5 times faster from 1 to 2 and to 4 GPUs [I], 1.3 from 4 to 8 [P] ModServe Fig. 9",
}
SHARES = {
    "llama-3.2-11b-vision": 0.79,
    "llama-3.2-90b-vision": 0.65,
    "internvl-2.5-26b": 0.25,
    "nvlm-d-72b": 0.54,
}
SIDE_PX = 896  # of the image of Table 1
TEXT_TOKENS = 128  # beside it: Fig. 5 does not say
PART_S = 0.005
COLD_S, WARM_S = 20.0, 1.0


@dataclass(frozen=True, slots=True)
class Preprocess:
    part_s: float
    megapixel_s: float
    source: str

    def image_s(self) -> float:
        return self.part_s + self.megapixel_s * SIDE_PX**2 / 1e6


def tile_s(tower: Tower, a100: GpuCard, gpus: int) -> float:
    """Seconds of a tile on A100s."""
    speedup = SPEEDUP[tower.stem]
    if tower.stem == "vit-h14":
        return VIT_TILE_S * speedup[4] / speedup[gpus]
    return tower.tile_flop / (FLOP_SHARE * a100.tensor_flops_per_s) / speedup[gpus]


def prefill_s(card: ModelCard, step: StepCost) -> float:
    """Of one image and its text, nothing else in the batch, in one iteration."""
    rows = card.media_tokens(SIDE_PX, SIDE_PX)
    text = TEXT_TOKENS if card.contract == "cross" else TEXT_TOKENS + rows
    work = StepWork(prefill_tokens=text, prefill_pairs=text * (text + 1) // 2)
    if card.contract == "cross":
        work = StepWork(text, text * (text + 1) // 2, cross_tokens=rows, cross_pairs=text * rows)
    return step.step_s(work)


def preprocess(a100: dict[str, LlmProfile]) -> Preprocess:
    """What is left of Llama-3.2-11B's time to first token, so that its tile seconds and its share are both right."""
    card = model("llama-3.2-11b-vision")
    share = SHARES[card.name]
    encode_s = card.tiles(SIDE_PX, SIDE_PX) * VIT_TILE_S
    rest_s = encode_s * (1 - share) / share - prefill_s(card, _step(a100, card))
    assert rest_s > PART_S, "preprocessing must take some time"
    return Preprocess(
        PART_S,
        (rest_s - PART_S) / (SIDE_PX**2 / 1e6),
        "[I] 5 ms a part, and by the pixel what is left of Llama-3.2-11B's time to first token when four tiles take"
        f" {encode_s:.2f} s and are 79 % of it (ModServe Fig. 5 [P]), less the prefill of {TEXT_TOKENS} text tokens"
        " and the image; the same for every model",
    )


def scales(tower: Tower, cards: list[ModelCard], a100: GpuCard, llms: dict[str, LlmProfile], cpu: Preprocess) -> str:
    """The [calibration] tables of the models that use a tower."""
    parts = []
    for card in cards:
        share = SHARES.get(card.name)
        if share is None:
            scale, why = 1.0, "[I] not calibrated: the paper gives no share for it"
        else:
            rest_s = cpu.image_s() + prefill_s(card, _step(llms, card))
            base_s = card.tiles(SIDE_PX, SIDE_PX) * tile_s(tower, a100, card.tensor_parallel)
            scale = share / (1 - share) * rest_s / base_s
            why = (
                f"[P/I] encoding is {share:.0%} of the time to first token (ModServe Fig. 5 [P]) of a {SIDE_PX} x"
                f" {SIDE_PX} image and {TEXT_TOKENS} text tokens [I] on {card.tensor_parallel} A100s (Table 1 [P]), the"
                f" rest being {rest_s * 1e3:.0f} ms by these profiles [I]; carried over to other GPUs and degrees [I]"
            )
        parts.append(f'[calibration."{card.name}"]\nsource = "{why}"\nscale = {scale:.3f}\n')
    return "\n".join(parts)


def slower(tower: Tower, base: Tables, other: Tables) -> float:
    """How many times longer the tower's products take on `other`, at a batch of four tiles."""

    def products_s(tables: Tables) -> float:
        rows, hidden, inner = 4 * tower.tile_patches, tower.hidden, tower.intermediate
        shapes = ((3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner))
        return sum(tables.gemm_s(rows, n, k) for n, k in shapes)

    return products_s(other) / products_s(base)


def encoder_text(
    tower: Tower, card: GpuCard, a100: GpuCard, factor: float, how: str, cpu: Preprocess, calibration: str
) -> str:
    base = (
        f"{VIT_TILE_S} s a tile of 1601 rows on 4 A100s, from ModServe's Fig. 12"
        if tower.stem == "vit-h14"
        else f"2 x parameters x rows at {FLOP_SHARE:.0%} of an A100's tensor rate, which keeps InternViT near the"
        " 10 times SigLIP of ModServe [P]"
    )
    known = {
        "time": f"[I/P] {base}{how}; {SPEEDUP_SOURCE[tower.stem]}; linear in tiles [P] Fig. 6",
        "load": "[I] cold 20 s for the process and 2.77 s a GB from disk; warm 1 s and the weights over PCIe",
    }
    note = f" {tower.note};" if tower.note else ""
    head = (
        f"# {tower.title} on {card.name}, bf16: inferred, not measured.\n{HEADER}"
        f'title = "{tower.title}"\nkind = "encoder"\ngpu = "{card.name}"\n'
    )
    shapes = (
        f'[model]\nsource = "[P/R] parameters as ModServe Table 1 has them [P]; shapes of its config.json [R];{note}'
        f' a media token goes to the LLM unprojected [P]"\n'
        f"parameters = {tower.parameters:.3e}\nlayers = {tower.layers}\nhidden = {tower.hidden}\n"
        f"heads = {tower.heads}\nintermediate = {tower.intermediate}\ntile_patches = {tower.tile_patches}\n"
        f"weights_bytes = {tower.weights_bytes}\nembed_bytes_per_token = {tower.embed_bytes_per_token}\n"
    )
    work = (
        f'[preprocess]\nsource = "{cpu.source}"\n'
        f"part_s = {number(cpu.part_s)}\nmegapixel_s = {number(cpu.megapixel_s)}\n"
    )
    parts = [_degree(tower, card, gpus, factor * tile_s(tower, a100, gpus)) for gpus in SPEEDUP[tower.stem]]
    return "\n".join([head, sources(known), shapes, work, calibration, *parts])


def _degree(tower: Tower, card: GpuCard, gpus: int, each_s: float) -> str:
    warm_s = WARM_S + tower.weights_bytes / gpus / card.links["pcie"].bytes_per_s
    return (
        f"[tp{gpus}]\ngpus = {gpus}\ntiles = [0, 1, 16]\n"
        f"tiles_s = {numbers((0.0, each_s, 16 * each_s))} # see sources.time\n"
        f"load_cold_s = {COLD_S + tower.weights_bytes * 2.77e-9:.1f} # see sources.load\nload_warm_s = {warm_s:.2f}\n"
    )


def _step(llms: dict[str, LlmProfile], card: ModelCard) -> StepCost:
    return next(part.step for part in llms[card.llm].parts if part.gpus == card.tensor_parallel)
