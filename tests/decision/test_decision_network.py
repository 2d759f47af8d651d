"""The decision transformer's network, data and rollout: what it can see, what is trained, what it learns."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.control.experts import expert
from headrace.control.tasks import Episodes, play, task

torch = pytest.importorskip("torch", reason="needs the extra [controllers]")
pytest.importorskip("peft", reason="needs the extra [controllers]")

# ruff: noqa: E402 - only what follows needs them
from headrace.training.decision import bodies
from headrace.training.decision.bodies import Body
from headrace.training.decision.data import FARTHEST, Demonstrations, Scale, pad, padded
from headrace.training.decision.evaluate import beside, step_ms
from headrace.training.decision.fit import Recipe, held_out, pace, train
from headrace.training.decision.network import DecisionNet, Space, Window
from headrace.training.decision.roll import Guarded, Policy

SPACE = Space(2, 1)
STEPS = 6


def small(seed: int = 0) -> Body:
    return bodies.scratch(seed, layers=2, width=32)


def net_of(body: Body) -> DecisionNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = DecisionNet(body, {"one": SPACE}, 100)
    net.eval()
    return net


def window(rows: int = 3, steps: int = STEPS) -> Window:
    random = torch.Generator().manual_seed(5)

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, generator=random)

    return Window(
        drawn(rows, steps),
        drawn(rows, steps, 2),
        drawn(rows, steps, 1),
        torch.arange(steps)[None].expand(rows, -1),
        torch.ones(rows, steps, dtype=torch.bool),
    )


def changed(of: Window, field: str, step: int) -> Window:
    values = getattr(of, field).clone()
    values[:, step] += 3.0
    return replace(of, **{field: values})


@pytest.mark.parametrize(
    ("field", "step", "first_moved"),
    [
        ("returns", 3, 3),  # an action sees its own return to go
        ("observations", 3, 3),  # and its own observation
        ("actions", 3, 4),  # but not itself
        ("actions", 5, 6),  # the last action is seen by nobody
    ],
)
@pytest.mark.parametrize("make", [small, pytest.param(bodies.language, marks=pytest.mark.model)])
def test_an_action_sees_what_came_before_it_and_nothing_else(
    make: Any, field: str, step: int, first_moved: int
) -> None:
    net, before = net_of(make(0)), window()
    with torch.no_grad():
        moved = (net.predict("one", changed(before, field, step)) - net.predict("one", before)).abs()[0, :, 0]
    assert not moved[:first_moved].any()
    assert (moved[first_moved:] > 0).all()


@pytest.mark.parametrize(
    ("make", "off"),
    [(small, 1e-5), pytest.param(bodies.language, 2e-2, marks=pytest.mark.model)],  # bfloat16: sums in another order
)
def test_what_is_not_real_is_not_read_and_shorter_windows_need_no_padding(make: Any, off: float) -> None:
    net, full = net_of(make(0)), window()
    short = Window(*(getattr(full, each.name)[:, 3:] for each in fields(Window)))
    half = replace(full, real=torch.arange(STEPS)[None].expand(3, -1) >= 3)
    noise = changed(changed(half, "observations", 1), "actions", 2)
    with torch.no_grad():
        plain, behind, noisy = (net.predict("one", each)[:, -3:] for each in (short, half, noise))
    torch.testing.assert_close(behind, noisy, atol=0.0, rtol=0.0)
    torch.testing.assert_close(behind, plain, atol=off, rtol=off)


@pytest.mark.model
def test_a_language_model_learns_through_its_adapters_alone() -> None:
    net = net_of(bodies.language(0))
    inside = {name: each.numel() for name, each in net.body.named_parameters() if each.requires_grad}
    assert all("lora_" in name and name.split(".self_attn.")[1][0] in "qkv" for name in inside)
    ranks = bodies.RANK * ((576 + 576) + 2 * (576 + 192))  # q; k and v are narrower
    assert sum(inside.values()) == bodies.LANGUAGE_LAYERS * ranks
    outside = 576 * (100 + 2 + 3 + 2 + 2) + 577  # times; return, observation, action; norm; head
    assert net.count_trained() == sum(inside.values()) + outside
    frozen = sum(each.numel() for each in net.body.parameters() if not each.requires_grad)
    assert frozen == bodies.LANGUAGE_LAYERS * (2 * 576**2 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576) + 576


@pytest.mark.model
def test_shuffled_weights_are_the_same_numbers_elsewhere() -> None:
    learnt, mixed = (dict(make(3).model.named_parameters()) for make in (bodies.language, bodies.shuffled))
    name = next(each for each in learnt if "layers.1.mlp.up_proj" in each)
    assert not torch.equal(learnt[name], mixed[name])
    assert torch.equal(learnt[name].flatten().sort().values, mixed[name].flatten().sort().values)


def test_a_local_checkpoint_is_loaded_as_it_is_and_adapted(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    saved = GPT2Model(GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=2))
    saved.save_pretrained(tmp_path)
    body = bodies.checkpoint(tmp_path, 0)
    assert body.width == 32
    assert body.scale == pytest.approx(float(saved.wte.weight.detach().pow(2).mean().sqrt()), rel=1e-5)
    names = {name for name, each in body.named_parameters() if each.requires_grad}
    assert names
    assert all("c_attn.lora_" in name for name in names)
    x, seen = torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.bool)
    with torch.no_grad():
        # An adapter begins at nothing: it is the model that was saved.
        torch.testing.assert_close(body.eval()(x, seen), saved.eval()(inputs_embeds=x).last_hidden_state)


def scalar_shown(count: int, seed: int, gain: float = 0.5) -> Episodes:
    """x' = 0.9 x + 0.3 u + noise, u = -gain x, the state seen twice."""
    rng = np.random.default_rng(seed)
    x, seen, actions, costs = rng.normal(size=count), [], [], []
    for _ in range(30):
        u = -gain * x
        seen.append(np.stack([x, x], axis=1))
        actions.append(u[:, None])
        costs.append(x**2 + u**2)
        x = 0.9 * x + 0.3 * u + 0.1 * rng.normal(size=count)
    told = (np.stack(each, axis=1) for each in (seen, actions, costs))
    return Episodes(*told, np.zeros((count, 30), bool))  # type: ignore[call-arg, arg-type]


RECIPE = Recipe(steps=150, rate=3e-3, context=5, warm_up=10, dropout=0.0, times_most=30)


def test_a_linear_gain_is_imitated_and_the_same_seed_gives_the_same_weights() -> None:
    shown = scalar_shown(20, 0)
    scale = Scale.of(shown)
    data = {"one": Demonstrations(shown, scale)}
    held = Demonstrations(scalar_shown(10, 9), scale)
    new = train(small, {"one": SPACE}, data, replace(RECIPE, steps=1))
    net = train(small, {"one": SPACE}, data, RECIPE)
    torch.rand(1)  # whatever else draws
    again = train(small, {"one": SPACE}, data, RECIPE)
    assert held_out(net, "one", held, 5, 0) < 0.1 * held_out(new, "one", held, 5, 0)
    rolled = Policy(net, "one", SPACE, scale, 5).begin(3)
    x = np.array([-0.5, 0.2, 0.6])
    np.testing.assert_allclose(rolled.act(np.stack([x, x], axis=1))[:, 0], -0.5 * x, atol=0.15)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    other = train(small, {"one": SPACE}, data, replace(RECIPE, seed=1))
    assert not all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_returns_to_go_add_up_and_what_is_left_is_what_was_not_paid() -> None:
    shown = scalar_shown(4, 0)
    scale = Scale.of(shown)
    drawn = Demonstrations(shown, scale).windows(np.random.default_rng(0), 200, 5)
    ends = drawn.real[:, -2] & (drawn.times[:, -1] == 29)
    assert ends.any()
    last = shown.costs[:, -1] / scale.cost
    assert all(np.isclose(last, -float(each)).any() for each in drawn.returns[ends, -1])
    assert scale.target == -shown.total.min() / scale.cost
    assert (drawn.times[drawn.real].min(), drawn.times[drawn.real].max()) == (0, 29)
    assert not drawn.real[drawn.times.diff(prepend=drawn.times[:, :1] - 1, dim=1) < 0].any()
    rolled = Policy(net_of(small()), "one", SPACE, scale, 5).begin(2)
    for cost in (np.array([1.0, 2.0]), np.array([3.0, 0.0])):
        rolled.act(np.zeros((2, 2)))
        rolled.done(np.zeros((2, 1)), cost)
    np.testing.assert_allclose(rolled.left, scale.target + np.array([4.0, 2.0]) / scale.cost)
    rolled.done(np.zeros((2, 1)), np.array([1e9, 0.0]))
    rolled.act(np.zeros((2, 2)))
    told = rolled._window().returns[0, -1]  # who has paid too much is told the best that there was
    assert float(told) == pytest.approx(-shown.costs[:, 3:].sum(axis=1).min() / scale.cost, rel=1e-6)


def test_a_rollout_keeps_the_last_steps_and_what_was_really_done() -> None:
    scale = replace(Scale.of(scalar_shown(4, 0)), middle=np.zeros(2), spread=np.ones(2), action=2.0)
    rolled = Policy(net_of(small()), "one", SPACE, scale, 3).begin(1)
    for step in range(5):
        rolled.act(np.full((1, 2), float(step)))
        made = rolled._window()
        assert made.observations[0, :, 0].tolist() == list(range(max(0, step - 2), step + 1))
        assert made.times[0].tolist() == list(range(max(0, step - 2), step + 1))
        assert made.actions[0, :-1, 0].tolist() == [0.5 * each for each in range(max(0, step - 2), step)]
        rolled.done(np.full((1, 1), float(step)), np.zeros(1))
    rolled.act(np.full((1, 2), 1e30))
    assert float(rolled._window().observations.max()) == FARTHEST


def test_a_shared_space_tells_which_numbers_there_are() -> None:
    shared = padded(4, 3)
    made = pad(np.ones((2, 2)), SPACE, shared)
    assert made.shape == (2, shared.observations)
    assert made[0].tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0]
    data = Demonstrations(scalar_shown(3, 0), Scale.of(scalar_shown(3, 0)), shared)
    drawn = data.windows(np.random.default_rng(0), 2, 5)
    assert drawn.actions.shape[-1] == 3
    assert (data.weight > 0).tolist() == [True, False, False]


def test_the_expert_takes_over_outside_of_what_was_shown() -> None:
    own = task("cm1")
    shown = play(own, expert("lqg", own).begin(3), [1, 2, 3])
    space = Space(own.observations, own.actions)
    with torch.random.fork_rng(devices=[]):
        net = DecisionNet(small(), {"cm1": space}, own.steps).eval()
    scale = Scale.of(shown)
    for range_, expected in (((-np.inf, np.inf), 0.0), ((5.0, 6.0), 1.0)):
        tight = replace(scale, returns=np.array([range_]).T, quantiles=np.array([[-np.inf], [np.inf]]))
        guarded = Guarded(Policy(net, "cm1", space, tight, 5).begin(2), expert("lqg", own).begin(2))
        found = play(own, guarded, [8, 9])
        assert guarded.fallbacks == expected * guarded.asked
    np.testing.assert_allclose(found.total, play(own, expert("lqg", own).begin(2), [8, 9]).total)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.02), (49, 1.0), (50, 1.0), (425, 0.55), (800, 0.1)])
def test_the_rate_warms_up_and_falls(step: int, expected: float) -> None:
    assert pace(step, Recipe(steps=800, rate=1.0)) == pytest.approx(expected, abs=1e-3)


def test_ratios_are_paired() -> None:
    other = np.array([1.0, 10.0, 100.0])
    told = beside(2.0 * other, other)
    assert (told.ratio, told.low, told.high, told.median, told.away) == pytest.approx((2.0, 2.0, 2.0, 2.0, 0.0))
    assert beside(np.array([1.0, 200.0]), np.array([1.0, 1.0])).away == 0.5


def test_steps_are_timed_with_a_full_window() -> None:
    policy = Policy(net_of(small()), "one", SPACE, Scale.of(scalar_shown(3, 0)), 4)
    assert len(step_ms(policy, 5)) == 5
