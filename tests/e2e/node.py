"""Runs the TypeScript client's own tests against a mesh, where Node and what `make test-typescript` made are there."""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[2] / "clients" / "typescript"
WITHIN_S = 60.0
EACH_FILE_S = 45.0  # Node's own limit: then it tells which test it was


async def run_tests(name: str, mesh: dict[str, Any]) -> None:
    """name: of a file in clients/typescript/test. Skips, saying why, where nothing can run it."""
    node, built = shutil.which("node"), PACKAGE / "build" / "test" / f"{name}.test.js"
    if node is None:
        pytest.skip("there is no Node here")
    if not built.exists():
        pytest.skip("the TypeScript client is not built: `make test-typescript` builds it")
    process = await asyncio.create_subprocess_exec(
        *(node, "--test", f"--test-timeout={EACH_FILE_S * 1000:.0f}", str(built)),
        env=os.environ | {"HEADRACE_TEST_MESH": json.dumps(mesh)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode()
