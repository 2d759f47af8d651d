"""A batch goes on the account of the API key that made it: over the real limiter and Redis."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.core.access import Limits
from headrace.mesh import keyfile
from tests.gateway.batching import begin, content, ended, jsonl, line, office
from tests.gateway.conftest import until
from tests.gateway.standin import StandIn
from tests.gateway.test_limits import Doors, doors  # noqa: F401  (a fixture)

pytestmark = pytest.mark.timeout(30)


async def test_lines_keep_to_their_keys_limits_and_end_with_the_key(
    doors: Doors,  # noqa: F811
    cell: StandIn,
    tmp_path: Path,
) -> None:
    door = await doors.open(Limits(requests_per_min=20))
    async with office(door.edge, tmp_path) as desk:
        desk.http.headers["authorization"] = f"Bearer {door.shown}"
        batch = await begin(desk.http, jsonl([line(number) for number in range(22)]))
        await until(lambda: len(cell.requests) == 20, 10.0)
        await asyncio.sleep(0.5)
        assert len(cell.requests) == 20, "one in three seconds is what the key may ask, whoever does it"
        other, record = keyfile.make(door.key.tenant, ("generate",))
        keyfile.write(door.path, [replace(door.key, revoked_s=time.time()), record])
        desk.http.headers["authorization"] = f"Bearer {other}"
        await asyncio.sleep(1.2)  # until the file is read again
        batch = await ended(desk.http, batch["id"], 25.0)
        assert batch["request_counts"] == {"total": 22, "completed": 20, "failed": 2}
        failed = await content(desk.http, batch["error_file_id"])
        assert [one["response"]["status_code"] for one in failed] == [401, 401]
