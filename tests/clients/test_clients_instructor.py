"""instructor: pydantic objects by each of the ways in which it can ask an OpenAI server for them.

Its metadata wants another version of jiter than the newest OpenAI client; requirements.txt says so.
"""

from typing import Any

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.clients.conftest import Served

instructor: Any = pytest.importorskip("instructor", reason="not installed here: make test-clients")

pytestmark = pytest.mark.timeout(300)
EIFFEL: list[Any] = [{"role": "user", "content": "Which city has the Eiffel tower?"}]


class City(BaseModel):
    """A city and where it is."""

    model_config = ConfigDict(extra="forbid")  # an open schema lets a weak model go on for long
    name: str = Field(max_length=20)
    country: str = Field(max_length=20)


def asking(served: Served, mode: str) -> Any:
    client = openai.OpenAI(base_url=served.base_url, api_key=served.key, max_retries=0, timeout=200)
    return instructor.from_openai(client, mode=instructor.Mode[mode], model=served.model)


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "RESPONSES_TOOLS"])
def test_a_pydantic_object(served: Served, mode: str) -> None:
    made = asking(served, mode).create(response_model=City, messages=EIFFEL, max_retries=1)
    assert isinstance(made, City)


def test_with_what_it_was_made_from(served: Served) -> None:
    made, raw = asking(served, "JSON_SCHEMA").create_with_completion(
        response_model=City, messages=EIFFEL, max_retries=1, max_tokens=80
    )
    assert City.model_validate_json(raw.choices[0].message.content).model_dump() == made.model_dump()
    assert raw.usage.completion_tokens > 5


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_an_object_as_it_comes(served: Served, mode: str) -> None:
    """It asks for a stream and reads JSON that is cut anywhere."""
    grown = list(asking(served, mode).create_partial(response_model=City, messages=EIFFEL, max_tokens=80))
    assert len(grown) > 3
    assert grown[0].country is None
    City.model_validate(grown[-1].model_dump())
