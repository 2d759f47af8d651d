"""Every event and every effect is written to a tape and read back as it was, whatever it holds."""

from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.effects import Effect
from headrace.core.events import Event, Tick
from headrace.core.queue import QueueConfig
from headrace.core.slo import SloClass
from headrace.core.tape import Frame, frame_line, header_line, read_tape


@pytest.mark.parametrize("noun", [*get_args(Event), *get_args(Effect)], ids=lambda noun: noun.__name__)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_what_is_written_is_read(noun: type, data: st.DataObject) -> None:
    value: Any = data.draw(st.from_type(noun))
    event, effects = (value, ()) if noun in get_args(Event) else (Tick(), (value,))
    _, frames = read_tape([header_line(QueueConfig(epoch=1)), frame_line(1.5, event, effects)])
    assert repr(list(frames)) == repr([Frame(1.5, event, effects)]), "by its words: a NaN does not equal itself"


def test_a_configuration_is_read_as_it_was() -> None:
    classes = {"chat": SloClass("chat", 0.5, 60.0, 10, ttl_s=3.0)}
    config = QueueConfig(epoch=3, planner="headrace", evict=False, classes=classes, prefix_tokens={"p": 7})
    assert read_tape([header_line(config)])[0] == config
