"""Who was served how much of late: what decays, what is lifted, and that no client fills the memory with names."""

import pytest

from headrace.core.queue.shares import Shares


def test_no_more_flows_are_remembered_than_there_may_be() -> None:
    """Also of those that only ever wait, as do requests that their clients give up."""
    shares = Shares(half_life_s=60.0, flows_max=8)
    shares.charge("served", 100.0, 0.0)
    for number in range(100):
        shares.lift(f"flow {number}", 50.0, 1.0)
    assert len(shares.all(1.0)) == 8
    for number in range(100):
        shares.charge(f"flow {number}", 1.0, 2.0)
    assert len(shares.all(2.0)) == 8
    assert "flow 99" in shares.all(2.0), "the one served longest ago goes first"


def test_what_was_served_halves_in_a_while() -> None:
    shares = Shares(half_life_s=60.0, flows_max=8)
    shares.charge("a", 100.0, 0.0)
    assert [shares.served("a", now_s) for now_s in (0.0, 60.0, 120.0)] == pytest.approx([100.0, 50.0, 25.0])
    shares.charge("a", 10.0, 60.0)
    assert shares.served("a", 60.0) == pytest.approx(60.0)
    shares.charge("a", -100.0, 60.0)
    assert shares.served("a", 60.0) == 0.0, "nobody saves up a claim"


def test_who_begins_to_wait_is_lifted_to_the_least_of_those_that_wait() -> None:
    shares = Shares(half_life_s=60.0, flows_max=8)
    shares.charge("a", 100.0, 0.0)
    shares.lift("a", 40.0, 0.0)
    shares.lift("b", 40.0, 0.0)
    assert (shares.served("a", 0.0), shares.served("b", 0.0)) == (100.0, 40.0)


def test_a_tenant_of_a_thousand_names_has_one_share() -> None:
    """Whoever is next, by claim, as the virtual queues choose: the names share what is their tenant's."""
    shares, served = Shares(half_life_s=60.0, flows_max=4_096), dict.fromkeys(("greedy", "modest"), 0)
    flows = [f"greedy {number}" for number in range(1_000)] + ["modest"]
    for _ in range(200):
        flow = min(flows, key=lambda flow: (shares.claim(flow, 1.0), flow))
        shares.charge_both(flow, 10.0, 1.0)
        served[flow.split(" ")[0]] += 1
    assert served == {"greedy": 100, "modest": 100}


def test_within_a_tenant_names_share_equally_and_no_name_is_one_of_them() -> None:
    shares = Shares(half_life_s=60.0, flows_max=64)
    served = dict.fromkeys(("t", "t a", "t b"), 0)
    for _ in range(30):
        flow = min(served, key=lambda flow: (shares.claim(flow, 1.0), flow))
        shares.charge_both(flow, 10.0, 1.0)
        served[flow] += 1
    assert served == {"t": 10, "t a": 10, "t b": 10}


@pytest.mark.parametrize(
    ("flow", "waiting", "claim"),
    [
        ("new", ("old a", "old b"), (40.0, 0.0)),  # the tenant is lifted to the least of tenants
        ("old c", ("old a", "old b"), (40.0, 15.0)),  # a flow of a tenant that waits: to the least of its own
        ("old", ("old a", "old b"), (40.0, 15.0)),
        ("new", (), (0.0, 0.0)),
    ],
)
def test_lifting_on_both_levels(flow: str, waiting: tuple[str, ...], claim: tuple[float, float]) -> None:
    shares = Shares(half_life_s=60.0, flows_max=64)
    shares.charge_both("old a", 15.0, 1.0)
    shares.charge_both("old b", 25.0, 1.0)
    shares.lift_both(flow, waiting, 1.0)
    assert shares.claim(flow, 1.0) == pytest.approx(claim)
