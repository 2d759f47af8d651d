"""Settings from the environment: defaults, values, and errors that name the variable."""

from dataclasses import fields
from pathlib import Path

import pytest

from headrace.mesh.config import _PARSERS, Settings
from headrace.mesh.errors import BadSetup


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"HEADRACE_MODEL": "  "}) == Settings()


def test_every_field_has_a_parser_that_accepts_its_default() -> None:
    assert set(_PARSERS) == {field.name for field in fields(Settings)}


def test_values_are_read() -> None:
    env = {"HEADRACE_SLOTS": "64", "HEADRACE_TRACE_SAMPLE": "1", "HEADRACE_SYNC_ALWAYS": "yes"}
    env |= {"HEADRACE_DATA_DIR": "/x/y", "HEADRACE_TRANSFER": "GRPC", "HEADRACE_NATS_URL": "nats://a:1,nats://b:2"}
    got = Settings.from_env(env)
    assert (got.slots, got.trace_sample, got.sync_always) == (64, 1.0, True)
    assert (got.data_dir, got.transfer, got.nats_url) == (Path("/x/y"), "grpc", "nats://a:1,nats://b:2")


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("HEADRACE_SLOTS", "many", "not a number"),
        ("HEADRACE_SLOTS", "-1", "from 0 to"),
        ("HEADRACE_PREFIX_CACHE_MB", "-2", "from -1 to"),
        ("HEADRACE_TRACE_SAMPLE", "1.5", "from 0.0 to 1.0"),
        ("HEADRACE_TRACE_SAMPLE", "nan", "from 0.0 to 1.0"),
        ("HEADRACE_NATS_URL", "127.0.0.1:4222", "nats://"),
        ("HEADRACE_REDIS_URL", "redis+sentinel://a:1,b:2", "SERVICE"),
        ("HEADRACE_REDIS_URL", "redis+sentinel://a:x/headrace", "HOST:PORT"),
        ("HEADRACE_REDIS_URL", "redis+sentinel://u:p@a:1/headrace", "a file"),
        ("HEADRACE_REDIS_URL", "http://a", "redis+sentinel://"),
        ("HEADRACE_HTTP_ADDR", "8000", "host:port"),
        ("HEADRACE_HTTP_ADDR", "a:99999", "host:port"),
        ("HEADRACE_CELL", "a}b", "letters"),
        ("HEADRACE_SYNC_ALWAYS", "maybe", "one of on, off"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, value: str, why: str) -> None:
    with pytest.raises(BadSetup, match=variable) as caught:
        Settings.from_env({variable: value})
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("model", "models", "served"),
    [
        ("", "", ("smollm2-135m",)),
        ("", "a, b", ("a", "b")),
        ("b", "a,b,c", ("b", "a", "c")),
        ("x", "a,b", ("x", "a", "b")),
        ("x", ",", ("x",)),
    ],
    ids=["neither", "models alone", "the default among them", "the default beside them", "none named"],
)
def test_which_models_are_served(model: str, models: str, served: tuple[str, ...]) -> None:
    settings = Settings.from_env({"HEADRACE_MODEL": model, "HEADRACE_MODELS": models})
    assert settings.served == served
    assert settings.model == served[0]
