"""Budget policies in the live governor on a real NATS and Redis: chosen by configuration, shown, watched, published."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from headrace.client import operator
from headrace.core.budget.policy import Policy
from headrace.core.budget.record import Play
from headrace.mesh.errors import BadSetup
from services.governor.options import Options
from tests.power.played import policy
from tests.power.test_governor_live import Workers, cell, scraped, show, started, workers

__all__ = ["workers"]  # the fixture

pytestmark = pytest.mark.timeout(60)
LIMIT = {"HEADRACE_ROW_BUDGET_W": "1300"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.bin"
    path.write_bytes(policy().to_bytes())
    return path


def game(file: Path, **more: str) -> dict[str, str]:
    return LIMIT | {"HEADRACE_BUDGET_POLICY": "game", "HEADRACE_BUDGET_POLICY_FILE": str(file)} | more


async def test_a_governor_process_plays_the_policy_that_it_is_told_of(
    workers: Workers, nats_url: str, redis_url: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = {"HEADRACE_AUDIT_FILE": str(tmp_path / "audit.jsonl"), "HEADRACE_CELL": "plays"}
    async with started(nats_url, redis_url, **game(file, **audit)) as (address, facts):
        await workers.run(lambda: len(workers.batches) >= 3)
        assert workers.world.may_draw_w()[0] <= 1_300.0
        reasons = {one.devices[0].reason for one in workers.batches[-1].workers}
        assert "row-0 keeps to 1300 W: its share by the budget policy" in reasons
        show(address, tmp_path, "status")
        shown = " ".join(capsys.readouterr().out.split())
        assert f"row-0: policy {policy().version}, gap 0." in shown
        assert "gains by leaving: encode 0." in shown
        notes = (await operator.governor_state(address)).notes
        assert any(note == "budget policy: game" for note in notes)
        text = await asyncio.to_thread(scraped, facts["metrics_port"])
        assert 'headrace_budget_played{row="row-0"} 1.0' in text
        assert 'headrace_budget_gain{player="decode",row="row-0"} 0.' in text
        assert 'headrace_budget_gap{row="row-0"} 0.' in text
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line["action"] == "policy"]
    assert (line["subject"], line["reason"]) == ("row-0", f"shares by the published policy {policy().version}")


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"not a policy", "not a file of a budget policy"), (None, "No such file"), (b"", "not a file")],
)
async def test_a_policy_that_cannot_be_read_is_an_equal_split_with_its_reason(
    workers: Workers, nats_url: str, redis_url: str, tmp_path: Path, content: bytes | None, word: str
) -> None:
    path = tmp_path / "policy.bin"
    if content is not None:
        path.write_bytes(content)
    async with cell(
        workers, nats_url, redis_url, f"bad-{word[:3].lower()}-{len(content or b'')}", **game(path)
    ) as made:
        await made.seconds(5)
        said = [entry for entry in made.governing.audit.latest() if entry.action == "policy"]
        assert len(said) == 1
        assert said[0].reason.startswith("equal split: HEADRACE_BUDGET_POLICY_FILE=")
        assert word in said[0].reason
        assert workers.world.cap_w == pytest.approx([433.0] * 3, abs=15.0)
        assert await made.store.read_play() is None, "nothing is published"


async def test_a_policy_is_published_watched_suspended_and_taken_back(
    workers: Workers, nats_url: str, redis_url: str, file: Path
) -> None:
    async with cell(workers, nats_url, redis_url, "watched", **game(file, HEADRACE_BUDGET_POLICY_GAP="0.5")) as made:
        await made.seconds(4)
        told, packed = await made.store.read_play(), await made.store.read_policy()
        assert told is not None
        assert packed is not None
        play, again = Play.from_bytes(told), Policy.from_bytes(packed)
        assert play.version == again.version == policy().version
        row = play.of("prefill-0")
        assert row is not None
        assert (row.full_w, row.limit_w) == ((700.0, 700.0, 700.0), 1_300.0)
        budgeting = made.governing.budgeting
        known = budgeting.watched["row-0"].gains
        assert known is not None
        assert 0.0 <= known.gap < 0.5
        budgeting.gap_most = known.gap / 2.0
        budgeting.watched["row-0"].looked_s = float("-inf")
        await made.seconds(3)
        reasons = [entry.reason for entry in made.governing.audit.latest() if entry.action == "policy"]
        assert len(reasons) == 2
        assert "by leaving the policy" in reasons[1]
        assert reasons[1].startswith("equal split: ")
        assert workers.world.cap_w == pytest.approx([433.0] * 3, abs=15.0)
        silent = await made.store.read_play()
        assert silent is not None
        assert Play.from_bytes(silent).rows == {}, "no worker follows it any more"
    async with cell(workers, nats_url, redis_url, "watched", **LIMIT) as made:
        await made.seconds(2)
        assert await made.store.read_policy() is None, "a governor that plays nothing takes an older policy back"
        assert not any("budget policy" in note for note in made.governing.notes())


async def test_an_equal_split_can_be_chosen(workers: Workers, nats_url: str, redis_url: str) -> None:
    chosen = LIMIT | {"HEADRACE_BUDGET_POLICY": "equal"}
    async with cell(workers, nats_url, redis_url, "even", **chosen) as made:
        await made.seconds(6)
        assert workers.world.cap_w == pytest.approx([433.0] * 3, abs=15.0)
        assert np.minimum(workers.world.cap_w, 700.0).sum() <= 1_300.0


@pytest.mark.parametrize(
    ("env", "word"),
    [
        (
            {"HEADRACE_BUDGET_POLICY": "auction"},
            "HEADRACE_BUDGET_POLICY='auction': must be one of central, equal, game",
        ),
        ({"HEADRACE_BUDGET_POLICY_GAP": "much"}, "HEADRACE_BUDGET_POLICY_GAP='much': not a number"),
        ({"HEADRACE_BUDGET_POLICY_GAP": "-1"}, "HEADRACE_BUDGET_POLICY_GAP='-1': must be a number, 0 or above"),
    ],
)
def test_settings_that_make_no_sense_name_themselves(env: dict[str, str], word: str) -> None:
    with pytest.raises(BadSetup) as refused:
        Options.from_env(env)
    assert str(refused.value) == word or word in str(refused.value)
    assert Options.from_env({}).budget_policy == "central"


async def test_a_policy_is_taken_back_by_a_governor_that_begins_to_observe(
    workers: Workers, nats_url: str, redis_url: str, file: Path
) -> None:
    async with cell(workers, nats_url, redis_url, "switches", **game(file)) as made:
        await made.seconds(4)
        assert await made.store.read_play() is not None
        made.governing.set_mode("observe", "ada")
        await made.seconds(2)
        assert await made.store.read_play() is None, "no worker follows it any more"
        assert np.isinf(workers.world.cap_w).all()
        made.governing.set_mode("enforce", "ada")
        await made.seconds(5)
        assert await made.store.read_play() is not None
        reasons = {one.devices[0].reason for one in workers.batches[-1].workers}
        assert "row-0 keeps to 1300 W: its share by the budget policy" in reasons
