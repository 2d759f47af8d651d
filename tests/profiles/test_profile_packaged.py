"""What must hold for every packaged profile, and what the papers say about some."""

import tomllib
from collections.abc import Iterator
from itertools import pairwise

import pytest

from headrace.core.cost import StepWork
from headrace.profiles import EncoderProfile, InstanceProfile, encoder, gpu, instance, model, packaged
from headrace.profiles.reading import ROOT

GPUS = packaged("gpus")


def of_kind(kind: str) -> Iterator[str]:
    for folder in GPUS:
        for stem in packaged(folder):
            values = tomllib.loads((ROOT / folder / f"{stem}.toml").read_text(encoding="utf-8"))
            if values["kind"] == kind:
                yield from (f"{folder}/{stem}/{table}" for table in values if table.startswith("tp"))


INSTANCES = tuple(of_kind("llm"))
ENCODERS = tuple(of_kind("encoder"))


def prefill_s(profile: InstanceProfile, tokens: int) -> float:
    return profile.step.step_s(StepWork(tokens, tokens * (tokens + 1) // 2))


def decode_s(profile: InstanceProfile, sequences: int, context: int = 1000) -> float:
    return profile.step.step_s(StepWork(0, 0, sequences, sequences * context))


def degrees(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Names by what stands before the degree, fewest GPUs first."""
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: int(name.rpartition("tp")[2])):
        found.setdefault(name.rpartition("/")[0], []).append(name)
    return found


def test_coverage() -> None:
    llms = set(degrees(INSTANCES))
    for folder in ("a100", "h100"):
        stems = {name.partition("/")[2] for name in llms if name.startswith(f"{folder}/")}
        assert {model(name).llm for name in packaged("models") if name != "qwen3-32b"} <= stems
        towers = {model(name).encoder for name in packaged("models")} - {""}
        assert {f"{folder}/{tower}/tp{gpus}" for tower in towers for gpus in (1, 2, 4, 8)} <= set(ENCODERS)
    assert {"a10/mistral-7b", "a10/vicuna-13b", "a10/llama-2-70b"} <= llms
    assert {"rtx-4090/llama-3.1-8b/tp1", "rtx-pro-6000/qwen3-32b/tp1"} <= set(INSTANCES)


@pytest.mark.parametrize("name", INSTANCES)
def test_an_instance(name: str) -> None:
    profile = instance(name)
    assert profile.name == name
    assert name.endswith(f"/tp{profile.gpus}")
    card = gpu(profile.gpu)
    assert profile.weights_bytes + profile.kv_room_bytes < 0.9 * profile.gpus * card.memory_bytes
    assert profile.kv_room_bytes > profile.kv_bytes_per_token * 1024, "a few sequences fit"
    assert profile.load_cold_s > profile.load_warm_s > 0
    prefills = [prefill_s(profile, tokens) for tokens in range(1, 20000, 97)]
    assert all(a < b for a, b in pairwise(prefills)), "more tokens take longer"
    decodes = [decode_s(profile, sequences) for sequences in range(1, 600, 7)]
    assert all(a < b for a, b in pairwise(decodes)), "more sequences take longer"
    assert decode_s(profile, 64) < 40 * decode_s(profile, 1), "batching pays"
    floor_s = profile.weights_bytes / profile.gpus / card.memory_bytes_per_s
    assert 0.85 * floor_s < decode_s(profile, 1, 100), "no faster than its weights can be read"


@pytest.mark.parametrize("name", INSTANCES)
def test_kv_bytes_follow_from_the_shapes(name: str) -> None:
    folder, stem, _ = name.split("/")
    shape = tomllib.loads((ROOT / folder / f"{stem}.toml").read_text(encoding="utf-8"))["model"]
    row = 2 * shape["kv_heads"] * shape["head_dim"] * 2
    cross = shape.get("cross_layers", 0)
    profile = instance(name)
    assert profile.kv_bytes_per_token == (shape["layers"] - cross) * row
    assert profile.cross_kv_bytes_per_token == cross * row
    assert bool(profile.step.cross_token_s) == bool(profile.step.cross_pair_s) == bool(cross)


@pytest.mark.parametrize("names", degrees(INSTANCES).values(), ids=degrees(INSTANCES))
def test_tensor_parallelism_makes_prefill_faster(names: list[str]) -> None:
    profiles = [instance(name) for name in names]
    for tokens in (512, 2048, 8192):
        seconds = [prefill_s(profile, tokens) for profile in profiles]
        assert seconds == sorted(seconds, reverse=True)
        # But never by more than the GPUs that were added.
        for one, more in pairwise(profiles):
            assert prefill_s(one, tokens) < 1.1 * prefill_s(more, tokens) * more.gpus / one.gpus


@pytest.mark.parametrize("folder", ["a100", "h100"])
def test_large_models_are_slower(folder: str) -> None:
    small, large = instance(f"{folder}/llama-3.1-8b/tp4"), instance(f"{folder}/llama-2-70b/tp4")
    assert prefill_s(large, 2048) > 5 * prefill_s(small, 2048)
    assert decode_s(large, 8) > 3 * decode_s(small, 8)


@pytest.mark.parametrize("stem", ["llama-2-70b", "mistral-7b", "internlm2.5-20b", "qwen2-72b"])
def test_gpus_in_order(stem: str) -> None:
    at = "tp1" if stem == "mistral-7b" else "tp8"
    h100, a100, a10 = (instance(f"{folder}/{stem}/{at}") for folder in ("h100", "a100", "a10"))
    for tokens in (64, 2048):
        assert prefill_s(h100, tokens) < prefill_s(a100, tokens) < prefill_s(a10, tokens)
    assert decode_s(h100, 16) < decode_s(a100, 16) < decode_s(a10, 16)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder(name: str) -> None:
    profile = encoder(name)
    assert profile.name == name
    assert profile.cost.tiles_s(8) == pytest.approx(8 * profile.cost.tiles_s(1), rel=1e-3), "linear in tiles [P]"
    assert profile.cost.tiles_s(40) == pytest.approx(40 * profile.cost.tiles_s(1), rel=1e-3)
    assert profile.load_cold_s > profile.load_warm_s > 0
    assert profile.power.encode_w > 0


def image_s(profile: EncoderProfile, lmm: str) -> float:
    return profile.cost.tiles_s(model(lmm).tiles(896, 896))


def test_encoders_as_the_paper_has_them() -> None:
    four, eight = encoder("a100/vit-h14/tp4"), encoder("a100/vit-h14/tp8")
    assert four.cost.tiles_s(1) == pytest.approx(0.07)
    assert four.cost.tiles_s(1) < eight.cost.tiles_s(1), "8 GPUs are worse than 4 [P]"
    four, eight = encoder("a100/internvit-6b/tp4"), encoder("a100/internvit-6b/tp8")
    assert four.cost.tiles_s(1) / eight.cost.tiles_s(1) == pytest.approx(1.3, rel=0.01), "[P]"
    ratio = image_s(encoder("a100/internvit-6b/tp1"), "nvlm-d-72b") / image_s(
        encoder("a100/siglip-400m/tp1"), "llava-onevision-7b"
    )
    assert ratio == pytest.approx(10, rel=0.1), "InternViT takes 10 times SigLIP [P]"


@pytest.mark.parametrize(
    ("lmm", "share"),
    [("llama-3.2-11b-vision", 0.79), ("llama-3.2-90b-vision", 0.65), ("internvl-2.5-26b", 0.25), ("nvlm-d-72b", 0.54)],
)
def test_shares_of_encoding_in_the_time_to_first_token(lmm: str, share: float) -> None:
    """ModServe Fig. 5 [P]: an 896 x 896 image and 128 text tokens [I], each stage on the GPUs of Table 1."""
    card = model(lmm)
    llm, tower = instance(f"a100/{lmm}/tp{card.tensor_parallel}"), encoder(f"a100/{lmm}/tp{card.tensor_parallel}")
    rows = card.media_tokens(896, 896)
    if card.contract == "cross":
        work = StepWork(128, 128 * 129 // 2, cross_tokens=rows, cross_pairs=128 * rows)
    else:
        work = StepWork(128 + rows, (128 + rows) * (129 + rows) // 2)
    encode_s = tower.cost.tiles_s(card.tiles(896, 896))
    rest_s = tower.cost.preprocess_s(896 * 896) + llm.step.step_s(work)
    assert encode_s / (encode_s + rest_s) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize(("lmm", "llm"), [("internvl-2.5-26b", "internlm2.5-20b"), ("nvlm-d-72b", "qwen2-72b")])
def test_a_multimodal_model_stands_for_its_parts(lmm: str, llm: str) -> None:
    assert instance(f"a100/{lmm}/tp8") == instance(f"a100/{llm}/tp8")
    tower, as_run = encoder("a100/internvit-6b/tp8"), encoder(f"a100/{lmm}/tp8")
    assert as_run.name == f"a100/{lmm}/tp8"
    assert as_run.weights_bytes == tower.weights_bytes
    assert as_run.cost.tiles_s(1) != pytest.approx(tower.cost.tiles_s(1)), "calibrated by itself"
    assert "Fig. 5" in as_run.source
    assert "calibration: [I] none" in tower.source
