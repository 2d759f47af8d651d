"""The audit log's entries: what a step has changed, and why. Devices of a row that change alike make one entry."""

from collections.abc import Iterator

import numpy as np

from headrace.core.power.decision import Decision, Entry
from headrace.core.power.fleet import Fleet, Floats, Mask, Numbers
from headrace.core.power.trust import DOUBTS

DEAF = len(DOUBTS)  # beside the doubts of trust.py
SAID = (*DOUBTS, "keeps another cap than it was told")
CHANGES_W = 0.5
SLOTS_CHANGE = 0.1  # of all slots: smaller steps are told together


def doubts(fleet: Fleet, before: Numbers, now: Numbers, gone_before: Mask, gone: Mask) -> Iterator[Entry]:
    """before, now: why each device is not believed, an index into SAID."""
    for place in np.flatnonzero(((before > 0) != (now > 0)) | (gone & ~gone_before)):
        key = fleet.keys[place]
        if gone[place] and not gone_before[place]:
            yield Entry("fallback", key, "silent for longer than its lease: it counts with nothing")
        elif now[place] and not gone[place]:
            yield Entry("distrust", key, f"{SAID[now[place]]}: safe cap")
        elif before[place] and not now[place]:
            yield Entry("trust", key, "believable for a while")


def changes(decision: Decision, before_w: Floats, caps_w: Floats) -> Iterator[Entry]:
    fleet = decision.fleet
    lower, higher = caps_w < before_w - CHANGES_W, caps_w > before_w + CHANGES_W
    codes = decision.why * 2 + decision.air
    for row in np.unique(fleet.row[lower | higher]):
        here = fleet.row == row
        for code in np.unique(codes[here & lower]):
            who = np.flatnonzero(here & lower & (codes == code))
            yield _group(fleet, "cap", who, decision.reason(int(who[0])) or "lower", before_w, caps_w)
        free = caps_w >= fleet.most_w - CHANGES_W
        for action, chosen in (("uncap", higher & free), ("cap", higher & ~free)):
            who = np.flatnonzero(here & chosen)
            if len(who):
                yield _group(fleet, action, who, "watts are free", before_w, caps_w)


def _group(fleet: Fleet, action: str, who: Numbers, reason: str, before_w: Floats, caps_w: Floats) -> Entry:
    row = fleet.rows[int(fleet.row[who[0]])].name
    subject = fleet.keys[who[0]] if len(who) == 1 else f"{row}: {len(who)} devices"
    gpus = fleet.gpus[who]
    before, after = float(before_w[who] @ gpus), float(caps_w[who] @ gpus)
    assert action in ("cap", "uncap")
    return Entry("cap" if action == "cap" else "uncap", subject, reason, before, after)


def admitted(fleet: Fleet, before: Floats, now: Floats) -> Iterator[Entry]:
    """before: told last; now: [row], share of slots. Told in steps, and at both ends."""
    at_end = ((now >= 1.0) | (now <= 0.0)) & (now != before)
    for row in np.flatnonzero((np.abs(now - before) > SLOTS_CHANGE) | at_end):
        why = "at their least the devices still draw too much" if now[row] < before[row] else "there is room again"
        yield Entry("admission", fleet.rows[row].name, why, float(before[row]), float(now[row]))


def moves(before: Decision | None, now: Decision) -> Iterator[Entry]:
    said = {} if before is None else {share.stage: share.move for share in before.stages}
    for share in now.stages:
        if share.move and share.move != said.get(share.stage, 0):
            where = "here" if share.move > 0 else "elsewhere"
            yield Entry("move", share.stage, f"one instance would serve better {where}", 0.0, float(share.move))
