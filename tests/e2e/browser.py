"""A headless Chromium for tests: the system's own, driven by playwright; what it complains of is kept."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A page reports what its policy has forbidden as an event of its own.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


def chromium() -> str:
    """Skips the test where there is none."""
    path = os.environ.get("HEADRACE_CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on this machine: install one, or name it in HEADRACE_CHROMIUM")
    return path


@dataclass
class Tab:
    page: Any
    complaints: list[str] = field(default_factory=list)

    async def at(self, page: str) -> None:
        await self.page.evaluate(f"location.hash = '#{page}'")
        await self.page.wait_for_selector(f"main.{page.partition('/')[0]}")

    async def until(self, expression: str, within_s: float = 60.0) -> None:
        """Asked from outside: the page's policy lets nobody evaluate a text within it."""
        async with asyncio.timeout(within_s):
            while not await self.page.evaluate(expression):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def quiet(self) -> None:
        """Nothing was written to the console as an error, nothing was forbidden."""
        assert await self.page.evaluate("window.violations") == []
        assert self.complaints == []


@asynccontextmanager
async def opened(url: str, **context: Any) -> AsyncIterator[Tab]:
    """A tab of a browser of its own. context: of playwright's new_context."""
    api = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pip install -e '.[console]'")
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    async with api.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            page = await (await browser.new_context(**context)).new_page()
            page.set_default_timeout(60_000)
            tab = Tab(page)
            page.on("console", lambda message: _heard(tab, message))
            page.on("pageerror", lambda error: tab.complaints.append(str(error)))
            await page.add_init_script(WATCH)
            await page.goto(url)
            yield tab
        finally:
            await browser.close()


def _heard(tab: Tab, message: Any) -> None:
    if message.type == "error":
        tab.complaints.append(message.text)
