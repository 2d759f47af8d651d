"""What a calibration's seconds do in the simulator, and profiles of devices that have no card."""

from pathlib import Path
from typing import Any

import pytest

from headrace.profiles import ProfileError, holds_encoder, instance
from headrace.sim.network import left_behind
from headrace.sim.result import Requests
from headrace.sim.run import simulate
from headrace.workload.arrival import Arrival, Part
from headrace.workload.scenario import parse

MIB = 2.0**20
SECONDS = {"admit_s": 0.002, "queue_s": 0.001, "command_s": 0.0005, "handover_s": 0.001, "deliver_s": 0.0005}
PROFILE = """
kind = "llm"
gpu = "desk"

[sources]
time = "[M] a test"
attention = "[M] a test"
memory = "[M] a test"
load = "[?] none"

[power]
source = "[?] none"
idle_w = 0.0
context_w = 0.0
prefill_w = 0.0
decode_w = 0.0
encode_w = 0.0

[model]
source = "[M] a test"
context_tokens = 8192
kv_bytes_per_token = 100000
weights_bytes = 1

[tp1]
gpus = 1
tokens = [1, 1001]
tokens_s = [0.010, 0.110]
kv_room_bytes = 10000000000
chunk_tokens = 2048
block_tokens = 16
load_cold_s = 0.0
load_warm_s = 0.0

[mesh]
admit_s = 0.001

[encoder]
kind = "encoder"
gpu = "desk"

[encoder.sources]
time = "[M] a test"
load = "[?] none"

[encoder.power]
source = "[?] none"
idle_w = 0.0
context_w = 0.0
prefill_w = 0.0
decode_w = 0.0
encode_w = 0.0

[encoder.model]
source = "[M] a test"
weights_bytes = 1
embed_bytes_per_token = 100
part_tokens = 6

[encoder.preprocess]
source = "[M] a test"
part_s = 0.003
megapixel_s = 0.010

[encoder.tp1]
gpus = 1
tiles = [1, 2]
tiles_s = [0.020, 0.030]
load_cold_s = 0.0
load_warm_s = 0.0
"""


@pytest.mark.parametrize(
    ("size_mib", "byte_s", "prefill_s", "left_mib", "why"),
    [
        (2, 1e-9, 1.0, 2, "too small to be sent early"),
        (64, 1e-9, 1.0, 2, "all but the last part is away when prefill ends"),
        (64, 1e-9, 0.0, 64, "prefill hid nothing"),
        (64, 1 / (64 * MIB), 0.5, 32, "half of it was away"),
        (64, 0.0, 0.0, 2, "bytes that take no time are away at once"),
    ],
)
def test_what_is_left_of_a_kv_cache(
    size_mib: float, byte_s: float, prefill_s: float, left_mib: float, why: str
) -> None:
    assert left_behind(byte_s, size_mib * MIB, prefill_s, 4 * MIB) == pytest.approx(left_mib * MIB), why


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "desk.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


def lone(profile: Path, arrival: Arrival, **mesh: float) -> Requests:
    """One request at an idle mesh of three workers."""
    pools: list[dict[str, Any]] = [
        {"name": stage, "stages": [stage], "slots": 8, "profile": f"{profile}/tp1"}
        for stage in ("encode", "prefill", "decode")
    ]
    pools[0]["batch_max"] = 8  # both parts at once, as it is said
    raw: dict[str, Any] = {"about": "x", "duration_s": 1.0, "model": "desk", "fleet": {"pools": pools}}
    raw |= {"workload": {"kind": "generated", "rate_rps": 1.0}, "mesh": SECONDS | mesh}
    return simulate(parse(raw, Path("one.toml")), "fcfs", arrivals=[arrival]).requests


TEXT = Arrival(0.1, 101, 3, slo_class="interactive")  # 10.1 MB of KV, 20 ms of prefill


def test_a_lone_text_takes_the_sum_of_its_seconds(profile: Path) -> None:
    requests = lone(profile, TEXT)
    assert requests.ttft_s[0] == pytest.approx(0.002 + 0.001 + 0.020 + 0.0005)
    assert requests.jct_s[0] == pytest.approx(requests.ttft_s[0] + 0.0005 + 0.001 + 2 * 0.010)


def test_writing_a_kv_cache_out_keeps_the_engine(profile: Path) -> None:
    slower = lone(profile, TEXT, export_byte_s=1e-9)
    assert slower.ttft_s[0] - lone(profile, TEXT).ttft_s[0] == pytest.approx(0.0101)
    stays = Arrival(0.1, 101, 1, slo_class="interactive")  # one token: nobody decodes it elsewhere
    assert lone(profile, stays, export_byte_s=1e-9).ttft_s[0] == pytest.approx(lone(profile, stays).ttft_s[0])


def test_bytes_beyond_what_prefill_hides_take_their_time(profile: Path) -> None:
    took_s = lone(profile, TEXT, byte_s=4e-9).jct_s[0] - lone(profile, TEXT).jct_s[0]
    assert took_s == pytest.approx(101 * 100_000 * 4e-9 - 0.020, rel=1e-6)


def test_pictures_are_counted_read_and_encoded_by_the_files_encoder(profile: Path) -> None:
    asked = Arrival(0.1, 101, 3, (Part("image", 1000, 500), Part("image", 500, 1000)), slo_class="interactive")
    apart = {"overlap": 0.0}  # prefill waits for both
    requests = lone(profile, asked, admit_part_s=0.004, admit_megapixel_s=0.002, part_s=0.001, event_s=0.0007, **apart)
    assert requests.media_tokens[0] == 12
    admitted_s = 0.002 + 2 * 0.004 + 1.0 * 0.002
    encoded_s = 0.001 + 0.001 + 2 * 0.003 + 1.0 * 0.010 + 0.030 + 0.0007
    assert requests.ready_s[0] - requests.arrival_s[0] == pytest.approx(admitted_s + encoded_s)


def test_a_device_without_a_card_says_its_own_power(profile: Path) -> None:
    assert instance(str(profile)).name == "desk/desk/tp1"
    assert holds_encoder(f"{profile}/tp1")
    assert not holds_encoder("a100/mistral-7b/tp1")
    cut = PROFILE[: PROFILE.index("[power]")] + PROFILE[PROFILE.index("[model]") :]
    profile.write_text(cut, encoding="utf-8")
    with pytest.raises(ProfileError, match="no GPU 'desk'"):
        instance(str(profile))
