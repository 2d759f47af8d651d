"""The console in a real browser, on a real mesh of profile engines under load: what people see and what they change."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from headrace.cli.rehearse import mesh_config, stage
from headrace.cli.supervisor import Mesh
from headrace.client import operator
from headrace.rehearsal.scene import Scene
from tests.e2e.asking import picture
from tests.e2e.browser import Tab, chromium, opened

pytestmark = pytest.mark.timeout(240)  # a browser and a loaded mesh on a machine that others load as well
PAGES = ("overview", "queues", "power", "request", "playground", "controls")
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def loaded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """More comes than it can serve: groups wait."""
    pytest.importorskip("playwright.async_api", reason="playwright is not installed: pip install -e '.[console]'")
    chromium()
    scene = Scene(encoders=1, prefill=2, decode=2, rate_rps=3.0, load=1.6)
    config = mesh_config(scene, tmp_path_factory.mktemp("console"), colocate=("prefill", "decode"))
    async with Mesh(config) as mesh, stage(scene, mesh) as on_stage:
        on_stage.begin_load()
        yield mesh
        await on_stage.end_load(0.0)


@pytest_asyncio.fixture(loop_scope="session")
async def tab(loaded: Mesh) -> AsyncIterator[Tab]:
    """What a test has done without a complaint of the browser's."""
    async with opened(f"{loaded.http_url}/console") as found:
        await found.page.wait_for_selector('#link[data-status="live"]')
        yield found
        await found.quiet()


async def test_it_opens_and_groups_appear_and_move(tab: Tab) -> None:
    page = tab.page
    await tab.until("headrace.state && headrace.state.point.tokens_s > 0")
    assert await page.locator(".worker").count() == 3
    assert await page.locator(".classes-table tbody tr").count() == 3
    await tab.at("queues")
    await page.wait_for_selector(".block", timeout=60_000)
    before, began_s = await page.evaluate("headrace.changes"), time.monotonic()
    await page.evaluate("document.querySelector('.block').focus()")
    await tab.until("document.querySelector('.detail h2').textContent.startsWith('Group')")
    await asyncio.sleep(2.0)
    grown = await page.evaluate("headrace.changes") - before
    assert 1 <= grown <= 4.0 * (time.monotonic() - began_s) + 2.0, "at most four a second"


async def test_a_requests_life_is_a_waterfall(tab: Tab) -> None:
    page = tab.page
    await tab.at("request")
    ended = page.locator("section.card", has=page.get_by_role("heading", name="Ended"))
    await ended.locator("a").first.wait_for(timeout=60_000)
    await ended.locator("a").first.click()
    await page.wait_for_selector(".span")
    stages = await page.locator(".span .name").all_inner_texts()
    assert {"admit", "queue", "prefill", "decode"} <= set(stages), stages
    assert await page.locator(".first").is_visible()
    assert "J a token" in await page.locator(".life").inner_text()
    await tab.at("request")
    running = page.locator("section.card", has=page.get_by_role("heading", name="Under way"))
    await running.locator("a").first.click()
    await page.wait_for_selector('.pill[data-level="run"]')
    assert await page.locator(".why").inner_text(), "why it waits, or what it does"


async def test_the_playground_streams_an_answer_to_two_pictures_and_a_clip(tab: Tab, loaded: Mesh) -> None:
    page = tab.page
    await tab.at("playground")
    pictures = [base64.b64encode(picture(seed)).decode() for seed in (1, 2)]
    await page.evaluate(
        """async (pictures) => {
          const data = new DataTransfer();
          for (const [i, text] of pictures.entries()) {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            data.items.add(new File([bytes], `p${i}.png`, { type: "image/png" }));
          }
          document.querySelector(".chat").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }""",
        pictures,
    )
    await tab.until("document.querySelectorAll('.ask .thumbs img').length === 2")
    mic = page.get_by_role("button", name="Record a clip")
    await mic.click()
    await page.wait_for_selector('button[aria-pressed="true"]')
    await asyncio.sleep(0.8)
    await mic.click()
    await page.wait_for_selector(".ask .thumbs audio")
    await page.get_by_role("textbox", name="Question").fill("What is in the pictures?")
    await page.locator("summary", has_text="Settings").click()
    await page.get_by_role("combobox", name="Class").select_option("interactive")
    await page.get_by_label("Tokens at most").fill("12")
    await page.get_by_role("button", name="Send").click()
    await tab.until("document.querySelector('.where') && !document.querySelector('.where').hidden")
    facts = await page.locator(".facts-line").inner_text()
    assert "12 tokens" in facts
    assert "first token" in facts
    assert " J" in facts
    assert await page.locator(".said").inner_text()
    stages = await page.locator(".where .name").all_text_contents()
    assert {"prefill", "decode"} <= set(stages)
    href = await page.locator(".turn a").get_attribute("href")
    told = await page.evaluate(
        "(id) => fetch(`/console/api/requests/${id}`).then((reply) => reply.json())", href.split("/")[1]
    )
    assert told["usage"]["image"] > 0
    assert told["usage"]["audio"] > 0


async def test_a_budget_takes_effect_and_stands_in_the_log(tab: Tab, loaded: Mesh) -> None:
    page, governor = tab.page, loaded.addresses.grpc["governor-0"]
    await tab.at("controls")
    await page.get_by_label("watts of row-0").fill("1300")
    await page.get_by_role("button", name="Set", exact=True).click()
    log = page.locator(".audit tbody")
    await log.get_by_text("none → 1300 W").wait_for()
    assert "loopback at gateway-0" in await log.inner_text()
    state = await operator.governor_state(governor)
    assert state.rows[0].budget_w == 1300.0
    assert [entry.who for entry in state.audit if entry.action == "budget"] == ["loopback at gateway-0"]
    await tab.at("power")
    await tab.until("headrace.state.workers.some((one) => one.devices.some((device) => device.cap_w))")
    assert "row-0 keeps to 1300 W" in await page.locator(".reasons").inner_text(timeout=60_000)
    await tab.at("controls")
    await page.get_by_role("button", name="A UPS is lost").click()
    await page.get_by_role("button", name="Declare it").click()
    await page.get_by_text("In force: ups.").wait_for()
    assert (await operator.governor_state(governor)).rows[0].limit_w == 975.0
    await page.get_by_role("button", name="All clear").click()
    await page.get_by_role("button", name="No budget").click()
    await log.get_by_text("1300 W → none").wait_for()


async def test_switches_switch_and_are_logged(tab: Tab, loaded: Mesh) -> None:
    page, manager = tab.page, loaded.addresses.grpc["qm-0"]
    await tab.at("controls")
    evict = page.get_by_role("switch", name="Evict")
    await evict.focus()
    await page.keyboard.press("Space")
    await page.wait_for_selector('[role="switch"][aria-label="Evict"][aria-checked="false"]')
    inspected = await operator.inspect(manager)
    assert {one.name: one.value for one in inspected.switches}["evict"] == "off"
    assert (inspected.switched[-1].who, inspected.switched[-1].after) == ("loopback at gateway-0", "off")
    await evict.click()
    await page.locator(".audit tbody").get_by_text("off → on").wait_for()
    await page.get_by_role("radio", name="observe").click()
    await page.get_by_role("button", name="Observe only").click()
    await page.wait_for_selector('[role="radio"][data-value="observe"][aria-checked="true"]')
    assert (await operator.governor_state(loaded.addresses.grpc["governor-0"])).mode == "observe"
    await page.get_by_role("radio", name="enforce").click()
    await page.wait_for_selector('[role="radio"][data-value="enforce"][aria-checked="true"]')


async def test_a_phone_in_the_dark_has_no_sideways(loaded: Mesh) -> None:
    async with opened(f"{loaded.http_url}/console", **PHONE) as phone:
        page = phone.page
        await page.wait_for_selector('#link[data-status="live"]')
        light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        for name in PAGES:
            await phone.at(name)
            await asyncio.sleep(0.4)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        await page.get_by_role("button", name="Dark or light").click()
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        await page.reload()
        assert await page.evaluate("document.documentElement.dataset.theme") == "light", "it is remembered"
        await phone.quiet()


async def test_every_page_is_reached_by_keyboard(tab: Tab) -> None:
    page = tab.page
    for name in PAGES[1:]:
        link = page.locator(f'#tabs a[href="#{name}"]')
        await link.focus()
        await page.keyboard.press("Enter")
        await page.wait_for_selector(f"main.{name}")
        assert await link.get_attribute("aria-current") == "page"
