"""A model whose every second can be reckoned by hand: profiles in a user's own form, written to a folder."""

from pathlib import Path

from headrace.characterize.parts import Parts
from headrace.core.cost import Link
from headrace.profiles import ModelCard, Tiling, encoder, instance

# 1 ms of weights, then 1 ms a token beyond 100; 1 us a pair; attention to 10 rows costs a microsecond each.
LLM = """
title = "toy"
kind = "llm"
gpu = "a100"

[sources]
time = "[I] chosen"
attention = "[I] chosen"
memory = "[I] chosen"
load = "[I] chosen"

[model]
source = "[I] chosen"
context_tokens = 32768
kv_bytes_per_token = 1000
cross_kv_bytes_per_token = {cross_kv}
weights_bytes = 1000

[tp1]
gpus = 1
tokens = [1, 100, 1100]
tokens_s = [0.1, 0.1, 1.1]
prefill_pair_s = 1e-6
decode_context_token_s = 1e-5
cross_token_s = {cross_token}
cross_pair_s = {cross_pair}
kv_room_bytes = 1000000
chunk_tokens = 400
block_tokens = 100
load_cold_s = 1.0
load_warm_s = 1.0

[tp2]
gpus = 2
tokens = [1, 100, 1100]
tokens_s = [0.05, 0.05, 0.8]
prefill_pair_s = 1e-6
decode_context_token_s = 1e-5
cross_token_s = {cross_token}
cross_pair_s = {cross_pair}
kv_room_bytes = 1000000
chunk_tokens = 400
block_tokens = 100
load_cold_s = 1.0
load_warm_s = 1.0
"""
TOWER = """
title = "toy"
kind = "encoder"
gpu = "a100"

[sources]
time = "[I] chosen"
load = "[I] chosen"

[model]
source = "[I] chosen"
weights_bytes = 1000
embed_bytes_per_token = 1000

[preprocess]
source = "[I] chosen"
part_s = 0.01
megapixel_s = 0.1

[tp1]
gpus = 1
tiles = [0, 10]
tiles_s = [0.0, 1.0]
load_cold_s = 1.0
load_warm_s = 1.0

[tp2]
gpus = 2
tiles = [0, 10]
tiles_s = [0.0, 0.8]
load_cold_s = 1.0
load_warm_s = 1.0
"""
# One tile of 100 x 100 px, 50 tokens; a grid of up to four.
TILING = Tiling("ratio", 100, 50, 4, 4)
LINK = Link(0.001, 1e6)


def toy(folder: Path, contract: str = "decoder") -> Parts:
    crosses = contract == "cross"
    llm, tower = folder / f"{contract}.toml", folder / "tower.toml"
    costs = {"cross_kv": 500, "cross_token": 1e-4, "cross_pair": 1e-6} if crosses else dict.fromkeys(_CROSS, 0)
    llm.write_text(LLM.format(**costs))
    tower.write_text(TOWER)
    card = ModelCard("toy", "[I] chosen", "toy", "toy", "cross" if crosses else "decoder", 1, TILING)
    return Parts(
        card=card,
        llms={degree: instance(f"{llm}/tp{degree}") for degree in (1, 2)},
        encoders={degree: encoder(f"{tower}/tp{degree}") for degree in (1, 2)},
        link=LINK,
        link_name="a wire",
        llm_file=str(llm),
        tower_file=str(tower),
    )


_CROSS = ("cross_kv", "cross_token", "cross_pair")
