"""Learnt controllers: what they look at, what is shipped, what they say on ONNX Runtime and in torch."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.control.constants import A100, H100
from headrace.control.randomised import TRAINED, draw
from headrace.control.thermal import Observed
from headrace.control.thermal.context import FEATURES, SECONDS, STEP_SECONDS, STEPS, Context, steps
from headrace.control.thermal.decision_transformer import DecisionTransformer, Filtered
from headrace.control.thermal.kalman_budget import KalmanBudget
from headrace.control.thermal.network import MANIFEST_FILE, NETWORKS, Network, assets
from headrace.control.trial import run
from headrace.core.errors import Unavailable

BYTES_MOST = 20e6  # of all that is shipped
LANGUAGE_MS = 100.0  # of a step for eight GPUs on one thread


def seen(gpus: int, **values: float) -> Observed:
    told = {"temp_c": 60.0, "power_w": 400.0, "queue": 0.5, "busy": 0.8, "speed": 1.0} | values
    return Observed(*(np.full(gpus, told[name]) for name in ("temp_c", "power_w", "queue", "busy", "speed")))


def test_the_context_is_a_minute_in_three_second_means_and_never_more() -> None:
    context = Context(H100, 2)
    context.add(seen(2, temp_c=40.0))
    size = context.nbytes
    observations, actions = context.steps()
    assert observations.shape == (2, STEPS, len(FEATURES))
    assert (observations[:, :, 0] == 40.0).all(), "as if it had always been so"
    for second in range(3 * SECONDS):
        context.add(seen(2, temp_c=float(second), speed=0.9 if second % 2 else 0.8))
    assert context.nbytes == size
    observations, actions = context.steps()
    last = 3 * SECONDS - 1
    assert observations[0, -1, 0] == pytest.approx(last - 1.0), "the mean of the last three seconds"
    assert observations[0, 0, 0] == pytest.approx(last - SECONDS + 2.0)
    assert actions[0, :, 0].tolist() == pytest.approx(
        [0.9 if (last - SECONDS + 1 + STEP_SECONDS * (at + 1)) % 2 else 0.8 for at in range(STEPS - 1)] + [0.0]
    ), "the speed of the second after each step; the last is to be found"


def test_one_network_for_all_kinds_watts_are_shares_of_what_the_kind_can_draw() -> None:
    contexts = [Context(kind, 1) for kind in (H100, A100)]
    for context, kind in zip(contexts, (H100, A100), strict=True):
        context.add(seen(1, power_w=0.5 * (kind.context_w + kind.prefill_w)))
    assert contexts[0].steps()[0] == pytest.approx(contexts[1].steps()[0])


def test_what_is_shipped_is_small_and_says_where_it_comes_from() -> None:
    folder = Path(str(assets()))
    assert sum(path.stat().st_size for path in folder.iterdir()) <= BYTES_MOST
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert manifest["ranges"]
    assert manifest["plants"]
    for name in NETWORKS:
        facts = manifest["networks"][name]
        assert facts["seeds"] == [0]
        assert all(facts[key] for key in ("date", "machine", "command", "recipe"))
        assert facts["bytes"] == (folder / f"{name}.onnx").stat().st_size
        assert facts["held_out_rmse"] < 0.03
        assert H100.speed_least < facts["least"] < facts["most"] <= 1.0


@pytest.mark.parametrize("name", NETWORKS)
def test_shipped_networks_let_a_cool_gpu_run_and_slow_a_hot_one(name: str) -> None:
    network = Network(name)
    for temp_c, busy, low, high in ((50.0, 0.6, 0.97, 1.0), (84.0, 1.0, 0.0, 0.97)):
        controller = DecisionTransformer(H100, 8, network)  # whose context begins as if it had always been so
        speed = controller.act(seen(8, temp_c=temp_c, power_w=650.0 * busy, busy=busy, queue=2.0 * (busy == 1.0)))
        assert (speed >= low).all(), temp_c
        assert (speed <= high).all(), temp_c


def test_behind_the_filter_it_is_never_faster_than_the_kalman_budget() -> None:
    trial, network = draw(TRAINED, (301, 302, 303, 304), 400), Network("distilled")
    safe, chosen = KalmanBudget(H100, 4), []
    run(trial, Filtered(H100, 4, network), lambda told, speed: chosen.append((safe.act(told), speed)))
    assert all((speed <= bound).all() for bound, speed in chosen)
    assert any((speed < bound - 1e-3).any() for bound, speed in chosen), "or this shows nothing"


def test_the_language_models_step_is_in_time_for_eight_gpus() -> None:
    controller, took_ms = DecisionTransformer(H100, 8, Network("language")), []
    for _ in range(12):
        began_s = time.process_time()  # one thread: what others do to the machine does not count
        controller.act(seen(8))
        took_ms.append(1e3 * (time.process_time() - began_s))
    assert np.median(took_ms) < LANGUAGE_MS


def test_what_is_missing_or_of_another_version_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="make controllers"):
        Network("scratch", tmp_path)
    told = json.loads((assets() / MANIFEST_FILE).read_text())
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(told | {"steps": 7}))
    (tmp_path / "scratch.onnx").write_bytes(b"")
    with pytest.raises(Unavailable, match="another version"):
        Network("scratch", tmp_path)


def test_importing_the_package_imports_no_runtime() -> None:
    code = (
        "import sys, headrace.control.thermal.decision_transformer; print({'torch','onnxruntime'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_onnx_says_what_torch_says(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="networks are trained and exported with torch")
    pytest.importorskip("peft", reason="the decision transformer's bodies need peft")
    from headrace.engines.runtime import computed, open_session
    from headrace.training.controllers.export import export, quantise
    from headrace.training.controllers.nets import Distilled, Scales, Served, Transformer
    from headrace.training.decision import bodies

    scales = Scales((60.0, 0.5, 0.8, 0.4, 0.98), (9.0, 0.2, 0.2, 1.0, 0.04), 0.04, (0.98, 0.04))
    rng = np.random.default_rng(0)
    observations, actions = steps(rng.normal(1.0, 0.3, (5, SECONDS, len(FEATURES))).astype(np.float32))
    given = {
        "returns": np.full((5, STEPS), -0.03, np.float32),
        "observations": observations,
        "actions": actions,
    }
    transformer = Transformer(bodies.scratch(0, layers=1, width=64), scales, 0).eval()
    distilled = Distilled(scales, 0).eval()
    with torch.no_grad():
        said = [net(*(torch.from_numpy(one) for one in given.values())) for net in (transformer, distilled)]
    expected = [said[0][:, -1].numpy(), said[1].numpy()]
    path = tmp_path / "net.onnx"

    def graph_says() -> Any:
        session = open_session(path, 1)
        return computed(session, {one.name: given[one.name] for one in session.get_inputs()})[0]

    for net, wanted in zip((distilled, Served(transformer)), reversed(expected), strict=True):
        export(net, path)
        assert graph_says() == pytest.approx(wanted, abs=1e-5)
    size = path.stat().st_size
    quantise(path)
    assert path.stat().st_size < 0.6 * size
    assert graph_says() == pytest.approx(expected[0], abs=0.01)


def test_the_same_seed_trains_the_same_network_and_demonstrations_know_how_it_ended() -> None:
    torch = pytest.importorskip("torch", reason="networks are trained with torch")
    pytest.importorskip("peft", reason="the decision transformer's bodies need peft")
    from headrace.training.controllers.demonstrations import HORIZON_S, collect, returns
    from headrace.training.controllers.fit import Recipe, fit, scales
    from headrace.training.controllers.nets import Transformer
    from headrace.training.decision import bodies

    rewards = np.arange(2 * HORIZON_S, dtype=np.float64)[:, None]
    ended = returns(rewards)[:, 0]
    assert ended[0] == pytest.approx((HORIZON_S - 1) / 2), "the mean of the next five minutes"
    assert ended[-2:].tolist() == pytest.approx([2 * HORIZON_S - 1.5, 2 * HORIZON_S - 1.0]), "of what is left"
    shown = collect({"kalman": 4, "lqg": 4}, 10_000, lambda _: None)
    assert shown.said.shape == shown.returns.shape == (8, 1_800)
    assert shown.who == ("kalman",) * 4 + ("lqg",) * 4

    def trained() -> Any:
        net = Transformer(bodies.scratch(3, layers=1, width=32), scales(shown), 3)
        fit(net, shown, Recipe(steps=3, batch=8, rate=1e-3), 3, lambda _: None)
        return net.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)
