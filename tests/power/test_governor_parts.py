"""What the governor's process is made of: rows from a file, devices from telemetry, temperatures, messages."""

from pathlib import Path

import numpy as np
import pytest

from headrace.core.power.fleet import Row
from headrace.core.power.governor import Governor
from headrace.mesh.errors import BadSetup
from headrace.v1 import governor_pb2
from services.governor.heat import Heat
from services.governor.history import History
from services.governor.options import Options
from services.governor.roll import Roll
from services.governor.rows import one_row, read_rows
from services.governor.wire import worker_caps

ROWS = """
[[row]]
name = "a"
workers = ["prefill-*"]
opaque = ["prefill-9"]
budget_w = 5000
aisle = "cold"
air_m3s = 0.7
[[row]]
name = "b"
hosts = ["node-1?"]
"""


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "rows.toml"
    path.write_text(text)
    return str(path)


def test_rows_are_read_and_workers_find_theirs(tmp_path: Path) -> None:
    rows = read_rows(file(tmp_path, ROWS), 900.0)
    assert rows.rows == (Row("a", "cold", 5_000.0, 0.7), Row("b", "", 900.0, 0.0), Row("elsewhere"))
    table = (("prefill-0", "x", (0, False)), ("prefill-9", "x", (0, True)), ("decode-0", "node-12", (1, False)))
    for worker, host, found in (*table, ("decode-0", "node-2", (2, False))):
        assert rows.of(worker, host) == found
    assert one_row(7.0).of("anybody", "anywhere") == (0, False)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "list of [[row]]"),
        ("row = 3", "list of [[row]]"),
        ("[[row]]\nworkers = ['*']", "must have a name"),
        ("[[row]]\nname = 'a'", "must name workers or hosts"),
        ("[[row]]\nname = 'a'\nworkers = ['*']\nbudget = 3", "row a: no setting budget"),
        ("[[row]]\nname = 'a'\nworkers = '*'", "row a: workers = '*' is not a list of texts"),
        ("[[row]]\nname = 'a'\nworkers = ['*']\nbudget_w = -3", "must be 0 (none) or above"),
        ("[[row]]\nname = 'a'\nworkers = ['*']\nbudget_w = true", "is not a number"),
        ("[[row]]\nname = 'a'\nworkers = ['*']\n" * 2, "more than one row is called a"),
        ("[[row", "HEADRACE_ROWS"),
    ],
)
def test_rows_that_make_no_sense_are_refused(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(BadSetup) as refused:
        read_rows(file(tmp_path, text))
    assert word in str(refused.value)
    assert "HEADRACE_ROWS" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADRACE_GOVERNOR", "maybe"),
        ("HEADRACE_ROW_BUDGET_W", "many"),
        ("HEADRACE_ROW_BUDGET_W", "-1"),
        ("HEADRACE_ROW_BUDGET_W", "nan"),
        ("HEADRACE_THERMAL", "fan"),
        ("HEADRACE_ROWS", "/nowhere/rows.toml"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadSetup, match=name):
        Options.from_env({name: value})


def telemetry(worker: str, *devices: governor_pb2.DeviceReading, host: str = "h") -> governor_pb2.Telemetry:
    return governor_pb2.Telemetry(worker=worker, incarnation="a", host=host, stages=["decode"], devices=devices)


def gpu(device: str = "plant:0", source: str = "plant", **more: float) -> governor_pb2.DeviceReading:
    told = {"power_w": 300.0, "temp_c": 50.0, "cap_least_w": 150.0, "cap_most_w": 700.0} | more
    return governor_pb2.DeviceReading(device=device, source=source, kind="h100", **told)  # type: ignore[arg-type]


def heard(*samples: governor_pb2.Telemetry) -> History:
    history = History()
    for sample in samples:
        history.on_telemetry(sample, 0.0)
    return history


def test_one_gpu_that_two_workers_report_is_one_and_the_plants_are_two() -> None:
    shared = [telemetry(name, gpu("nvml:0", "nvml")) for name in ("w-0", "w-1")]
    assert Roll(one_row()).read(heard(*shared), 0.0)[0].keys == ("w-0/nvml:0",)
    mine = telemetry("w-0", gpu("nvml:0", "nvml", cap_least_w=0.0)), shared[1]
    assert Roll(one_row()).read(heard(*mine), 0.0)[0].keys == ("w-1/nvml:0",), "of the one that may cap it"
    both = [telemetry(name, gpu(), gpu("nvml:0", "nvml")) for name in ("w-0", "w-1")]
    assert Roll(one_row()).read(heard(*both), 0.0)[0].keys == ("w-0/plant:0", "w-1/plant:0")


def test_a_fleet_stays_the_same_object_while_nobody_comes_or_goes() -> None:
    roll, history = Roll(one_row()), heard(telemetry("w-0", gpu()))
    first, seen = roll.read(history, 1.0)
    assert (seen.age_s[0], seen.power_w[0]) == (1.0, 300.0)
    assert np.isnan([seen.full_w[0], seen.busy[0], seen.cap_w[0]]).all(), "what is not told is not known"
    history.on_telemetry(telemetry("w-0", gpu(power_w=310.0)), 1.0)
    assert roll.read(history, 1.0)[0] is first
    history.on_telemetry(telemetry("w-1", gpu()), 1.0)
    assert roll.read(history, 1.0)[0] is not first


def test_a_thermometer_has_no_part_and_what_nobody_knows_has_its_own_limit() -> None:
    chip = governor_pb2.DeviceReading(device="hwmon:k10", source="hwmon", power_w=-1.0, temp_c=40.0)
    odd = governor_pb2.DeviceReading(device="nvml:0", source="nvml", power_w=90.0, temp_c=40.0, cap_most_w=600.0)
    fleet, _ = Roll(one_row()).read(heard(telemetry("w-0", chip, odd)), 0.0)
    assert fleet.keys == ("w-0/nvml:0",)
    assert (bool(fleet.cappable[0]), fleet.most_w[0], fleet.law.context_w[0]) == (False, 600.0, pytest.approx(102.0))


def test_a_hot_gpu_is_slowed_and_a_lying_sensor_is_found() -> None:
    roll, heat, governor = Roll(one_row()), Heat("kalman"), Governor()
    history = heard(telemetry("w-0", gpu(full_w=700.0, busy=1.0, speed=1.0, power_w=700.0, temp_c=82.0)))
    fleet, seen = roll.read(history, 0.0)
    for _ in range(40):
        heat.follow(fleet, roll.told, seen)
    assert heat.speed[0] < 1.0
    assert abs(heat.expected_c[0] - 82.0) < 2.0
    history.on_telemetry(telemetry("w-0", gpu(full_w=700.0, busy=1.0, speed=1.0, power_w=700.0, temp_c=40.0)), 0.0)
    _, seen = roll.read(history, 0.0)
    heat.follow(fleet, roll.told, seen)
    assert heat.expected_c[0] - 40.0 > governor._bounds.off_k, "a die does not cool by 42 degrees in a second"


def test_who_comes_later_does_not_disturb_what_was_learnt() -> None:
    roll, heat = Roll(one_row()), Heat("kalman")
    hot = telemetry("w-0", gpu(full_w=700.0, busy=1.0, speed=1.0, power_w=700.0, temp_c=82.0))
    history = heard(hot)
    for _ in range(40):
        heat.follow(roll.read(history, 0.0)[0], roll.told, roll.read(history, 0.0)[1])
    before = heat.speed[0]
    history.on_telemetry(telemetry("v-0", gpu(full_w=200.0, busy=0.1, speed=1.0)), 0.0)
    fleet, seen = roll.read(history, 0.0)
    heat.follow(fleet, roll.told, seen)
    assert fleet.keys == ("v-0/plant:0", "w-0/plant:0")
    assert heat.speed == pytest.approx([1.0, before], abs=0.02)


def test_a_batch_speaks_of_those_alone_of_whom_something_is_asked() -> None:
    roll, governor = Roll(one_row(500.0)), Governor()
    busy = gpu(full_w=380.0, busy=1.0, speed=1.0)
    fleet, seen = roll.read(heard(telemetry("w-0", busy), telemetry("cpu-0")), 0.0)
    (caps,) = worker_caps(governor.step(fleet, seen, 0.0))
    assert caps.worker == "w-0"
    assert [(one.device, one.cap_w, one.fallback_w) for one in caps.devices] == [("plant:0", 500.0, 380.0)]
    assert caps.devices[0].reason == "row-0 keeps to 500 W: headroom that nobody uses"
    assert (caps.weight, caps.slots_share, caps.decode_factor) == (1.0, 1.0, 1.0)
