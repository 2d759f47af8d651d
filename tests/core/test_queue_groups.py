"""Request groups in virtual queues: evictions, resumptions, moves and model swaps."""

import pytest

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.queue import QueueConfig
from tests.core.grouped_world import SOON, config, first_tokens_s, operations, seen, world_of
from tests.core.queue_world import World


def test_an_urgent_request_has_a_patient_one_evicted_which_goes_on_later() -> None:
    world = world_of(slots=2)
    patient = [world.submit(slo_class="batch-2", max_tokens=40) for _ in range(2)]
    world.pass_time(3.0)
    assert all(seen(world, each) > 2 for each in patient)
    urgent = world.submit(max_tokens=4)
    assert first_tokens_s(world, [urgent])[urgent] <= 2.0
    assert operations(world)["evict"] == 1
    world.calm()
    assert operations(world)["resume"] == 1
    assert all(end.reason == "length" for end in world.gateway.ends.values())


def test_without_the_switch_nobody_is_evicted() -> None:
    world = world_of(slots=2, evict=False)
    for _ in range(2):
        world.submit(slo_class="batch-2", max_tokens=40)
    world.pass_time(3.0)
    urgent = world.submit(max_tokens=4)
    assert first_tokens_s(world, [urgent])[urgent] > 10.0
    world.calm()
    assert "evict" not in operations(world)


def test_a_worker_that_declines_goes_on_and_nothing_is_lost() -> None:
    world = world_of(slots=1)
    world.declining = True
    world.submit(slo_class="batch-2", max_tokens=20)
    world.pass_time(3.0)
    world.submit(max_tokens=2)
    world.pass_time(4.0)
    assert operations(world)["evict_declined"] >= 1
    world.calm()


def test_an_evicted_request_moves_to_a_worker_with_room() -> None:
    world = world_of(slots=1, workers=2)
    patient = [world.submit(slo_class="batch-2", max_tokens=60) for _ in range(2)]
    world.pass_time(3.0)
    urgent = [world.submit(max_tokens=30)]
    world.pass_time(4.0)
    assert operations(world)["evict"] == 1
    moved = next(each for each in patient if world.core.explain(each, world.now_s).state == "evicted")
    owner = world.core.explain(moved, world.now_s).worker
    other = next(each for each in patient if each != moved)
    world.send(ev.Cancel(other, "gw"))
    world.pass_time(3.0)
    assert operations(world).get("move") == 1
    assert world.core.explain(moved, world.now_s).worker != owner
    assert urgent
    world.calm()


@pytest.mark.parametrize("move", [True, False])
def test_a_worker_that_only_decodes_goes_on_with_what_it_evicted(move: bool) -> None:
    world = World(config(move=move))
    world.host_bytes = 1 << 20
    world.add_worker("p", "prefill", slots=2)
    world.add_worker("d", "decode", slots=1)
    world.pass_time(0.5)
    patient = world.submit(slo_class="batch-2", max_tokens=30)
    world.pass_time(3.0)
    urgent = world.submit(max_tokens=3)
    assert first_tokens_s(world, [urgent])[urgent] <= 3.0
    world.calm()
    assert operations(world)["resume"] == 1
    assert world.gateway.ends[patient].reason == "length"


def test_models_are_swapped_once_for_many_requests() -> None:
    world = world_of(slots=2, models=("m", "n"), evict=False)
    for number in range(12):
        world.submit(slo_class="batch-2", model="mn"[number % 2], max_tokens=3)
    world.calm()
    assert all(end.reason == "length" for end in world.gateway.ends.values())
    assert operations(world)["load_warm"] <= 3


def test_a_swap_evicts_what_runs_and_the_old_model_comes_back_for_it() -> None:
    world = world_of(slots=2, models=("m", "n"))
    patient = world.submit(slo_class="batch-2", max_tokens=80)
    world.pass_time(3.0)
    urgent = world.submit(model="n", max_tokens=2)
    assert first_tokens_s(world, [urgent])[urgent] < 10.0
    world.calm()
    assert operations(world)["load_warm"] == 2
    assert world.gateway.ends[patient].reason == "length"


def test_the_model_that_makes_way_can_still_be_asked_for() -> None:
    """From the load's command to its end: its requests wait in line, and gateways go on to let them in."""
    world = world_of(slots=1, models=("m", "n"))
    world.submit(model="n", max_tokens=2)
    world.submit(model="n", max_tokens=2)
    waiting = world.submit(slo_class="batch-2", max_tokens=2)
    shown = []
    while world.core.explain(waiting, world.now_s).state == "queued":
        view, inspection = world.core.view(world.now_s), world.core.inspect(world.now_s)
        shown.append((view.workers[0].loading, all(model.servable for model in view.models), inspection.unplaced))
        world.pass_time(0.5)
    assert {loading for loading, _, _ in shown} >= {"n", "m"}
    assert all(servable and not unplaced for _, servable, unplaced in shown), shown
    world.calm()


def test_whoever_is_cancelled_on_the_way_out_stands_in_no_line() -> None:
    world = world_of(slots=1)
    patient = world.submit(slo_class="batch-2", max_tokens=60)
    world.pass_time(3.0)
    world.submit(max_tokens=2)
    while not any(isinstance(what, ev.Evicted) for _, what, _ in world.mail):
        world.deliver(0)
    world.handle(ev.Cancel(patient, "gw"))
    world.deliver_all()  # the invariants are checked after each event
    assert "resume" not in operations(world)
    world.calm()
    assert world.gateway.ends[patient].reason == "cancelled"


def test_a_new_leadership_takes_over_what_is_evicted_and_to_be_cancelled() -> None:
    world = world_of(slots=1)
    patient = world.submit(slo_class="batch-2", max_tokens=30)
    world.pass_time(3.0)
    world.submit(max_tokens=40)
    world.pass_time(3.0)
    assert world.core.explain(patient, world.now_s).state == "evicted"
    world.restart_manager()
    world.handle(ev.Cancel(patient, "gw"))
    world.calm()
    assert world.gateway.ends[patient].reason == "cancelled"


def test_without_the_switch_no_other_model_is_loaded() -> None:
    world = world_of(models=("m", "n"), swap=False)
    request_id = world.submit(model="n", max_tokens=2)
    world.pass_time(5.0)
    explained = world.core.explain(request_id, world.now_s)
    assert explained.state == "queued"
    assert "no live" in explained.why
    world.send(ev.Cancel(request_id, "gw"))
    world.calm()


def test_a_worker_with_room_serves_what_waits_at_another() -> None:
    world = world_of(slots=1, workers=2)
    ids = [world.submit(slo_class="batch-2", max_tokens=4) for _ in range(6)]
    world.pass_time(8.0)
    assert sum(each in world.gateway.ends for each in ids) >= 4
    world.calm()


def test_a_planner_is_told_where_every_group_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each plan would begin from nothing and forget what the one before has found."""
    told, standing = [], []

    def watched(world: World, effect: fx.Effect) -> None:
        if isinstance(effect, fx.SolvePlan):
            queues = enumerate(world.core.inspect(world.now_s).queues)
            standing.append({(group.id, at, place) for at, queue in queues for place, group in enumerate(queue.groups)})
            told.append({(group.id, group.instance, group.position) for group in effect.problem.groups})
        carry_out(world, effect)

    carry_out = World.carry_out
    monkeypatch.setattr(World, "carry_out", watched)
    world = world_of(slots=1, workers=2, models=("m", "n"))
    for number in range(12):
        world.submit(max_tokens=8 + number, model="mn"[number % 2])
    world.pass_time(8.0)
    assert told == standing
    assert max(map(len, told)) > 2
    world.calm()


def test_tenants_share_what_one_of_them_would_take() -> None:
    world = world_of(slots=1)
    greedy = [world.submit(tenant="greedy", slo_class="batch-2", max_tokens=4) for _ in range(12)]
    world.pass_time(4.0)
    modest = [world.submit(tenant="modest", slo_class="batch-2", max_tokens=4) for _ in range(3)]
    world.pass_time(18.0)
    assert all(each in world.gateway.ends for each in modest)
    assert sum(each in world.gateway.ends for each in greedy) < 10
    world.calm()


@pytest.mark.parametrize("tokens", [(2, 24), (24, 2)], ids=["longer", "shorter"])
def test_tenants_share_also_where_their_requests_differ_in_size(tokens: tuple[int, int]) -> None:
    """Which makes them groups of two kinds: the other's, due later, would all come last."""
    world = world_of(slots=1, predict_lengths=True)
    greedy = [world.submit(tenant="greedy", slo_class="batch-2", max_tokens=tokens[0]) for _ in range(20)]
    world.pass_time(1.0)
    modest = world.submit(tenant="modest", slo_class="batch-2", max_tokens=tokens[1])
    while modest not in world.gateway.ends:
        world.pass_time(1.0)
    ended = sum(each in world.gateway.ends for each in greedy)
    assert ended < 10, ended
    world.pass_time(300.0)
    world.calm()


@pytest.mark.parametrize(("priorities", "first"), [((0, 2), 1), ((0, -2), 0), ((1, 3), 1)])
def test_priority_halves_the_target_at_each_step(priorities: tuple[int, int], first: int) -> None:
    world = world_of(slots=1, evict=False)
    world.submit(max_tokens=8)
    world.pass_time(0.5)
    ids = [world.submit(slo_class="batch-2", max_tokens=2, priority=each) for each in priorities]
    shown = first_tokens_s(world, ids)
    assert shown[ids[first]] < shown[ids[1 - first]]
    world.calm()


def test_a_new_leadership_takes_over_what_is_evicted() -> None:
    world = world_of(slots=1)
    patient = world.submit(slo_class="batch-2", max_tokens=30)
    world.pass_time(3.0)
    world.submit(max_tokens=20)
    world.pass_time(3.0)
    assert world.core.explain(patient, world.now_s).state == "evicted"
    world.restart_manager()
    world.pass_time(3.0)
    assert world.core.explain(patient, world.now_s).state == "evicted"
    world.calm()
    assert len(world.gateway.tokens[patient]) == 30


def test_srpt_takes_out_whoever_has_most_to_do() -> None:
    world = World(QueueConfig(epoch=1, order="srpt", evict_rest_s=0.0, evict_tokens_min=1, classes=SOON))
    world.host_bytes = 1 << 20
    world.add_worker("w0", "prefill", "decode", slots=1)
    world.pass_time(0.5)
    long = world.submit(max_tokens=900)
    world.pass_time(2.0)
    short = world.submit(max_tokens=2)
    assert first_tokens_s(world, [short])[short] <= 3.0
    world.pass_time(3.0)
    assert operations(world) == {"evict_asked": 1, "evict": 1, "resume": 1}
    assert world.core.explain(long, world.now_s).state == "decode"
    world.send(ev.Cancel(long, "gw"))
    world.calm()


def test_a_new_leadership_finds_it_evicted_where_it_was_to_be_decoded() -> None:
    """The prefill worker still keeps it, its release having been lost, and is heard first."""
    world = World(config())
    world.host_bytes = 1 << 20
    world.add_worker("p", "prefill", slots=2)
    world.add_worker("d", "decode", slots=1)
    world.pass_time(0.5)
    carry = world.carry_out

    def lose(effect: fx.Effect) -> None:
        if not (isinstance(effect, fx.SendRelease) and effect.worker == "p"):
            carry(effect)

    world.carry_out = lose  # type: ignore[method-assign]
    patient = world.submit(slo_class="batch-2", max_tokens=30)
    world.pass_time(3.0)
    world.submit(max_tokens=40)
    while world.core.explain(patient, world.now_s).state != "evicted":
        world.pass_time(0.5)
    world.carry_out = carry  # type: ignore[method-assign]
    world.restart_manager()
    world.calm()
    assert world.gateway.ends[patient].reason == "length"


def test_every_effect_names_a_live_worker() -> None:
    """An eviction is sent to whoever decodes, never twice at once."""
    world = world_of(slots=1)
    world.submit(slo_class="batch-2", max_tokens=30)
    world.pass_time(3.0)
    effects: list[fx.Effect] = []
    carry = world.carry_out

    def note(effect: fx.Effect) -> None:
        effects.append(effect)
        carry(effect)

    world.carry_out = note  # type: ignore[method-assign]
    world.submit(max_tokens=2)
    world.pass_time(2.0)
    evictions = [each for each in effects if isinstance(each, fx.SendEvict)]
    assert [each.worker for each in evictions] == ["w0"]
    world.calm()
