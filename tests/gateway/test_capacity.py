"""Admission by the queue manager's last status: what counts as knowing that nobody serves."""

import pytest

from headrace.core.errors import Overloaded, Unavailable
from services.gateway.capacity import SETTLE_S, STALE_S, Cell, ClassLoad, admit, led_since_s

SERVED = {"m": frozenset({"image"})}
FULL = {"interactive": ClassLoad(queued=4, limit=4, oldest_wait_s=2.0)}


@pytest.mark.parametrize(
    ("cell", "kinds", "refused"),
    [
        (None, (), True),
        (Cell(100.0, modalities=SERVED), ("image",), False),
        (Cell(100.0, modalities=SERVED), ("audio",), True),
        (Cell(100.0), (), True),
        (Cell(100.0 - STALE_S - 0.1), (), False),
        (Cell(100.0, led_s=100.0), (), False),
        (Cell(100.0, modalities=SERVED, led_s=100.0), ("audio",), False),
        (Cell(100.0, led_s=100.0 - SETTLE_S), (), True),
    ],
    ids=["never heard", "served", "no encoder", "nobody", "stale", "new: nobody", "new: no encoder", "heard them all"],
)
def test_who_is_refused_because_nobody_serves(cell: Cell | None, kinds: tuple[str, ...], refused: bool) -> None:
    try:
        admit(cell, 100.0, "m", "interactive", kinds, lambda: 0)
    except Unavailable:
        assert refused
    else:
        assert not refused


def test_a_new_leadership_knows_how_full_a_class_is() -> None:
    """It has read the journal; only workers it may not have heard."""
    with pytest.raises(Overloaded):
        admit(Cell(100.0, FULL, led_s=100.0), 100.0, "m", "interactive", (), lambda: 0)


def test_a_leadership_is_new_to_a_gateway_that_knew_another() -> None:
    first_s = led_since_s(None, 7, 100.0)
    assert first_s < 100.0 - SETTLE_S, "a gateway that has just started knows nobody who served before"
    cell = Cell(100.0, epoch=7, led_s=first_s)
    assert led_since_s(cell, 7, 100.25) == first_s
    cell = Cell(101.0, epoch=9, led_s=led_since_s(cell, 9, 101.0))
    assert (cell.led_s, led_since_s(cell, 9, 101.25)) == (101.0, 101.0)
