"""A real Prometheus in a temporary directory that scrapes a real mesh by its targets.json, with the product's rules."""

import asyncio
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from headrace.mesh.servers import free_port
from tests.deploy.queries import RULES

INTERVAL_S = 1


class Prometheus:
    def __init__(self, folder: Path, targets: Path) -> None:
        """targets: a file of file_sd_configs, which may change."""
        self.url = f"http://127.0.0.1:{free_port()}"
        every = f"{INTERVAL_S}s"
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "scrape_configs": [{"job_name": "mesh", "file_sd_configs": [{"files": [str(targets)]}]}],
            "rule_files": [str(path) for path in RULES],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        options += [f"--web.listen-address={self.url.removeprefix('http://')}", "--enable-feature=exemplar-storage"]
        self._http = httpx.AsyncClient(base_url=self.url, timeout=10, verify=False)  # loopback, no TLS
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(["prometheus", *options], stdout=self._log, stderr=self._log)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, 10)
        self._log.close()

    async def ask(self, path: str, **parameters: str) -> Any:
        reply = await self._http.get(f"/api/v1/{path}", params=parameters)
        answer: dict[str, Any] = reply.json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    async def series(self, query: str, at_s: float) -> list[dict[str, Any]]:
        """Those that have a number at that time."""
        found = (await self.ask("query", query=query, time=str(at_s)))["result"]
        return [one for one in found if one["value"][1] not in ("NaN", "+Inf", "-Inf")]

    async def all_series(self, queries: Sequence[str], at_s: float) -> list[list[dict[str, Any]]]:
        return list(await asyncio.gather(*(self.series(query, at_s) for query in queries)))

    async def firing(self) -> dict[str, dict[str, Any]]:
        """Alerts that fire, by name; of several with one name the last."""
        alerts = (await self.ask("alerts"))["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    async def all_up(self, count: int, within_s: float) -> None:
        deadline_s, health = time.monotonic() + within_s, ["no answer"]
        while time.monotonic() < deadline_s:
            try:
                targets = (await self.ask("targets"))["activeTargets"]
            except (httpx.TransportError, ValueError):
                targets = []
            health = [f"{target['labels']['job']}: {target['health']} {target['lastError']}" for target in targets]
            if len(targets) == count and all(target["health"] == "up" for target in targets):
                return
            await asyncio.sleep(0.2)
        raise AssertionError(health)
