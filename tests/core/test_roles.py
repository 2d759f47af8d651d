"""Roles of workers that can both prefill and decode: the policy as a table, and the queue manager's books around it."""

import random

import pytest

from headrace.core.instance import Pace
from headrace.core.queue import QueueConfig
from headrace.core.slo import SloClass
from headrace.core.stages.roles import DECODE_SHARE, NEW_S, Elastic, Member, Role, Sight, Split
from tests.core.grouped_world import config
from tests.core.queue_weather import Weather
from tests.core.queue_world import World

LETTERS: dict[str, Role] = {"p": "prefill", "b": "both", "d": "decode"}


def sight(roles: str, prefill: float, decode: float, *, since_s: float = 0.0, **others: int) -> Sight:
    """One letter a worker; the later have more to decode."""
    members = [
        Member(f"w{at}", LETTERS.get(letter, "both"), NEW_S if letter == "." else since_s, decoding=at)
        for at, letter in enumerate(roles)
    ]
    return Sight(members, prefill, decode, **others)


def told(roles: dict[str, Role]) -> str:
    return "".join(roles[name][0] for name in sorted(roles))


def settled(policy: Elastic, seen: Sight, seconds: int = 60) -> str:
    """What it comes to when the loads stay as they are."""
    for now_s in range(100, 100 + seconds):
        roles = policy.choose(seen, float(now_s))
        seen = Sight(
            [
                Member(member.id, roles[member.id], member.since_s if member.role == roles[member.id] else now_s)
                for member in seen.members
            ],
            seen.prefill_load,
            seen.decode_load,
        )
    return "".join(sorted(told(roles)))


@pytest.mark.parametrize(
    ("roles", "prefill", "decode", "wanted", "why"),
    [
        ("....", 0.0, 0.0, "ppdd", "nothing is known: evenly"),
        (".", 5.0, 5.0, "b", "one alone does both"),
        ("..", 0.2, 0.2, "pd", "two at ease are told apart"),
        ("....", 2.0, 0.5, "pppd", "as the load is"),
        ("pd..", 0.3, 1.5, "pddd", "newcomers fill up what is missing"),
        ("ppdd", 1.0, 1.0, "ppdd", "balanced"),
        ("ppdd", 0.1, 1.0, "ppdd", "uneven, but nobody is short"),
    ],
)
def test_who_gets_which_role_at_once(roles: str, prefill: float, decode: float, wanted: str, why: str) -> None:
    assert told(Elastic().choose(sight(roles, prefill, decode), 100.0)) == wanted, why


@pytest.mark.parametrize(
    ("roles", "prefill", "decode", "wanted", "why"),
    [
        ("ppdd", 0.4, 2.4, "dddp", "a prefill worker whose line is empty takes decodes"),
        ("pddd", 2.0, 0.5, "dppp", "and back"),
        ("ppdd", 0.1, 3.4, "bddd", "prefill does not fill one worker: it decodes beside"),
        ("ppdd", 3.4, 0.1, "bppp", "decode fills no worker: it prefills beside"),
        ("ppdd", 3.4, 0.3, "dppp", "but prompts would leave no time for so much"),
        ("bddd", 0.5, 1.5, "dddp", "at ease again nobody does both"),
        ("ppdd", 8.0, 8.0, "ddpp", "both are short: a change would only move the lack"),
    ],
)
def test_where_a_load_that_stays_leads(roles: str, prefill: float, decode: float, wanted: str, why: str) -> None:
    assert settled(Elastic(), sight(roles, prefill, decode)) == wanted, why


def test_a_change_is_wanted_for_a_while_first_and_whoever_has_changed_rests() -> None:
    policy = Elastic(hold_s=2.0, rest_s=8.0)
    short = sight("pppd", 0.3, 2.4)
    assert [told(policy.choose(short, now_s)) for now_s in (100.0, 101.0)] == ["pppd", "pppd"]
    assert told(policy.choose(sight("pppd", 0.3, 0.5), 101.5)) == "pppd", "a moment's need"
    assert told(policy.choose(short, 102.0)) == "pppd", "counted from its return"
    assert told(policy.choose(short, 104.0)) == "dppd", "and who has least to end changes"
    rested = sight("dppd", 0.3, 2.4, since_s=100.0)
    assert told(policy.choose(rested, 105.0)) == "dppd"
    assert told(policy.choose(rested, 108.0)) == "ddpd"


def test_a_stage_that_has_lost_its_last_worker_gets_one_at_once() -> None:
    assert told(Elastic().choose(sight("pp", 1.0, 0.0, since_s=99.9), 100.0)).count("p") < 2
    assert told(Elastic().choose(sight("p", 1.0, 0.0, since_s=99.9), 100.0)) == "b"


def test_workers_that_only_do_one_stage_count_and_keep_it() -> None:
    alone = sight("b", 0.0, 0.9, other_prefills=1)
    assert alone.best() == Split(0, 0, 1)
    assert sight("b", 3.0, 0.3, other_prefills=1, other_decodes=1).best() == Split(1, 0, 0)


# --- the queue manager's books ---

SOON = {"interactive": SloClass("interactive", ttft_s=4.0, timeout_s=1e6, queue_limit=4096)}


def world_of(count: int, *, slots: int = 4, prefill_token_s: float = 0.01) -> World:
    world = World(QueueConfig(epoch=1, roles="elastic", classes=SOON))
    world.host_bytes = 1 << 20
    world.pace = Pace(0.5, 0.0, prefill_token_s)
    for number in range(count):
        world.add_worker(f"w{number}", "prefill", "decode", slots=slots)
    world.pass_time(1.0)
    return world


def roles_of(world: World) -> str:
    return "".join(sorted(worker.role[:1] for worker in world.core.view(world.now_s).workers))


def test_a_prefill_worker_is_sent_prompts_and_hands_over() -> None:
    world = world_of(2)
    assert roles_of(world) == "dp"
    first = world.submit(max_tokens=6)
    world.pass_time(1.5)
    assert world.core.queue_view(10).running[first] == ("w1",), "w0 has prefilled, w1 decodes"
    world.calm()


def test_roles_follow_a_load_that_moves_from_prefill_to_decode_and_nothing_is_lost() -> None:
    """Short prompts with long answers: seats run out, one prefill worker after the other takes some; then prompts
    alone. A worker that has changed ends what it had begun."""
    world = world_of(4)
    world.add_worker("e", "encode")
    assert roles_of(world) == "ddpp"
    for _ in range(14):
        world.submit(max_tokens=40)
    world.pass_time(8.0)
    assert roles_of(world).count("d") == 3 or "b" in roles_of(world)
    # While they still decode, prompts come that prefill would take long for.
    for _ in range(40):
        world.submit(images=4, max_tokens=2)
    world.pass_time(30.0)
    assert world.core.inspect(world.now_s).operations["role_changed"] >= 2
    world.calm()
    assert {end.reason for end in world.gateway.ends.values()} == {"length"}


def test_the_last_one_left_does_both() -> None:
    world = world_of(2)
    for _ in range(3):
        world.submit(max_tokens=4)
    world.workers["w0"].die()
    world.pass_time(6.0)
    assert [worker.role for worker in world.core.view(world.now_s).workers] == ["both"]
    assert len(world.gateway.ends) == 3
    world.calm()


def test_a_worker_that_does_both_among_others_keeps_room_for_prompts() -> None:
    world = world_of(2, slots=8, prefill_token_s=0.001)
    for _ in range(30):
        world.submit(max_tokens=60)
    world.pass_time(12.0)
    assert roles_of(world) == "bd"
    both = next(worker for worker in world.core.view(world.now_s).workers if worker.role == "both")
    assert both.slots_used <= DECODE_SHARE * both.slots + 1
    world.calm()


def test_fixed_is_what_it_was() -> None:
    world = World(QueueConfig(epoch=1))
    world.host_bytes = 1 << 20
    for name in ("a", "b"):
        world.add_worker(name, "prefill", "decode")
    world.pass_time(1.0)
    assert roles_of(world) == "", "no roles are told"
    running = [world.submit(max_tokens=9) for _ in range(2)]
    world.pass_time(1.0)
    assert {world.core.queue_view(9).running[each] for each in running} == {("a",), ("b",)}


class Changeable(Weather):
    def __init__(self, seed: int) -> None:
        changes = {"roles": "elastic"}
        world = World(config(**changes) if seed % 2 else QueueConfig(epoch=1, **changes))  # type: ignore[arg-type]
        super().__init__(world, random.Random(seed), faults=9)
        world.host_bytes = 1 << 20
        world.pace = Pace(0.2, 0.0, 0.01)
        for number in range(2 + seed % 3):
            world.add_worker(f"w{number}", "prefill", "decode", slots=2)
        if seed % 5 == 4:
            world.add_worker("d", "decode", slots=2)
        world.add_worker("e", "encode")
        world.pass_time(0.5)

    def arrive(self) -> None:
        long = self.world.now_s % 20.0 < 10.0
        for _ in range(self.draw.randrange(3)):
            images = 3 if long and self.draw.random() < 0.3 else 0
            slo_class = self.draw.choice(("interactive", "batch-2"))
            self.world.submit(images=images, max_tokens=2 if long else 12, slo_class=slo_class)


@pytest.mark.parametrize("seed", range(16))
def test_weather_over_roles(seed: int) -> None:
    weather = Changeable(seed)
    for _ in range(60):
        weather.blow()
    weather.world.declining = False
    weather.world.calm()


def test_the_weather_changes_roles() -> None:
    weather = Changeable(2)
    for _ in range(60):
        weather.blow()
    weather.before.update(weather.done())
    assert weather.before["role_changed"] >= 2
