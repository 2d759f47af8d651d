"""A mesh of the default model for other people's clients, which know nothing of it but its addresses and a key.

These tests run in an environment of their own (`make test-clients`): the clients bring versions of packages that clash
with the mesh's, so the mesh runs in .venv and nothing of Headrace is imported here.
"""

import importlib.util
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv" / "bin"
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the network for prices
ASSETS = ROOT / "libs/headrace/assets/demo"
START_S, STOP_S = 150.0, 20.0  # the first start on a machine also builds the model's graph
# Of the tenant that is turned away: a bucket of this many requests, one more every ten seconds.
LIMITED_REQUESTS_PER_MIN = 6
# Of one that has tokens for a single short question a day.
SPENT_TOKENS_PER_DAY = 60


@dataclass(frozen=True, slots=True)
class Served:
    """Where the mesh answers, and with which keys."""

    http_url: str
    grpc_addr: str
    key: str
    limited_key: str  # LIMITED_REQUESTS_PER_MIN
    spent_key: str  # SPENT_TOKENS_PER_DAY
    model: str = "smollm2-135m"

    @property
    def base_url(self) -> str:
        """As OpenAI's clients want it."""
        return f"{self.http_url}/v1"

    @property
    def door(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("other people's clients are not installed here: make test-clients")
    folder = tmp_path_factory.mktemp("clients")
    keys = folder / "keys.toml"
    key = _key(keys, "--tenant", "clients", "--scopes", "generate,batch,operate")
    limited = _key(keys, "--tenant", "limited", "--requests-per-min", str(LIMITED_REQUESTS_PER_MIN))
    spent = _key(keys, "--tenant", "spent", "--tokens-per-day", str(SPENT_TOKENS_PER_DAY))
    environment = os.environ | {"HEADRACE_API_KEYS_FILE": str(keys), "HEADRACE_API_KEY": key}
    with (folder / "up.log").open("wb") as log:
        command = [str(BIN / "headrace"), "up", "--data-dir", str(folder / "mesh")]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
    try:
        state = _ready(process, folder)
        yield Served(state["http_urls"][0], state["grpc_addresses"][0], key, limited, spent)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


def _key(file: Path, *words: str) -> str:
    """Made as an operator makes it; it is shown once."""
    command = [str(BIN / "headrace"), "keys", "--file", str(file), "add", *words]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout
    return next(word for word in shown.split() if word.startswith("hr-"))


def _ready(process: "subprocess.Popen[bytes]", folder: Path) -> dict[str, list[str]]:
    until_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until_s:
        path = folder / "mesh" / "run.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        if state.get("state") == "ready":
            return dict(state)
        time.sleep(0.2)
    raise RuntimeError(f"no mesh: {(folder / 'up.log').read_text()[-2000:]}")
