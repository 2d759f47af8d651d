"""What the console costs: bytes and time of its page; how a browser and a gateway carry 64 instances with 1,000 groups.

The groups change four times a second. `python -m loadtest.benches.console --json`; wants Chromium and playwright.
"""

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headrace.report.provenance import plain
from loadtest.benches.console_cell import GROUPS, INSTANCES, states
from loadtest.benches.report import finish, percentile, say
from services.gateway.console.changes import changes
from services.gateway.console.feed import CHANGE_S, GROUPS_LEAST, GROUPS_MAX, GROUPS_MOST
from services.gateway.console.files import answer, read_files
from services.gateway.routes import HttpServer, bind

SEED = 1
SHOWN = min(GROUPS_MOST, max(GROUPS_LEAST, GROUPS_MAX // INSTANCES))  # groups of each queue, as the feed asks
STEPS, WATCHED_S, LOADS = 200, 10.0, 5
QUICK_STEPS, QUICK_WATCHED_S, QUICK_LOADS = 40, 4.0, 2
NAMES = ("chromium", "chromium-browser", "google-chrome")


def gateway_cost(steps: int) -> dict[str, float]:
    """Of one change: making the state, finding what differs, writing it; with the protobuf of a stand-in's managers."""
    made_ms, told_ms, sizes = [], [], []
    source = states(SEED, SHOWN, CHANGE_S)
    before = next(source)
    snapshot = len(msgspec.json.encode(before))
    for _ in range(steps):
        began = time.process_time()
        after = next(source)
        between = time.process_time()
        data = msgspec.json.encode(changes(before, after))
        told_ms.append(1e3 * (time.process_time() - between))
        made_ms.append(1e3 * (between - began))
        sizes.append(len(data))
        before = after
    return {
        "snapshot_bytes": snapshot,
        "change_bytes_mean": sum(sizes) / len(sizes),
        "make_cpu_ms_p50": percentile(made_ms, 0.5),
        "tell_cpu_ms_p50": percentile(told_ms, 0.5),
    }


def application() -> Starlette:
    """The console's own files, and the large cell instead of a mesh's."""
    files = read_files()

    async def file(request: Request) -> Response:
        status, headers, body = answer(files, request.path_params.get("name", ""), dict(request.headers.raw))
        return Response(body, status, headers)

    async def events(request: Request) -> Response:
        return StreamingResponse(_lines(), media_type="text/event-stream")

    return Starlette(
        routes=[Route("/console/api/events", events), Route("/console", file), Route("/console/{name:path}", file)]
    )


async def _lines() -> AsyncIterator[bytes]:
    source = states(SEED, SHOWN, CHANGE_S)
    before = next(source)
    yield b"event: snapshot\ndata: %s\n\n" % msgspec.json.encode(before)
    due_s = time.monotonic()
    for after in source:
        due_s += CHANGE_S
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        yield b"event: change\ndata: %s\n\n" % msgspec.json.encode(changes(before, after))
        before = after


PAINTS = """() => {
  const paints = Object.fromEntries(performance.getEntriesByType("paint").map((one) => [one.name, one.startTime]));
  const found = ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind));
  const files = found.filter((one) => !one.name.includes("/api/"));
  const bytes = files.reduce((sum, one) => sum + one.transferSize, 0);
  return { first: paints["first-contentful-paint"], bytes, files: files.length };
}"""
FRAMES = """(seconds) => new Promise((resolve) => {
  const from = performance.now(), { changes, bytes } = headrace;
  let frames = 0, longest = 0, last = from;
  const count = (now) => {
    frames += 1;
    longest = Math.max(longest, now - last);
    last = now;
    if (now - from < seconds * 1000) return requestAnimationFrame(count);
    const nodes = document.querySelectorAll("*").length, blocks = document.querySelectorAll(".block").length;
    const grown = { changes: headrace.changes - changes, bytes: headrace.bytes - bytes };
    resolve({ seconds: (now - from) / 1000, frames, longest, nodes, blocks, ...grown });
  };
  requestAnimationFrame(count);
})"""


async def browsed(url: str, chromium: str, loads: int, watched_s: float) -> dict[str, Any]:
    api = import_module("playwright.async_api")
    async with api.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        painted = [await _load(browser, url) for _ in range(loads)]
        page = await (await browser.new_context(viewport={"width": 1366, "height": 860})).new_page()
        await page.goto(url)
        await page.evaluate("location.hash = '#queues'")
        await page.wait_for_selector(".block")
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = await _busy_s(session)
        seen = await page.evaluate(FRAMES, watched_s)
        busy_s = await _busy_s(session) - before
        await browser.close()
    return {
        "page_bytes": painted[0]["bytes"],
        "page_files": painted[0]["files"],
        "first_paint_ms_p50": percentile([one["first"] for one in painted], 0.5),
        "live_ms_p50": percentile([one["live"] for one in painted], 0.5),
        "changes_per_s": seen["changes"] / seen["seconds"],
        "stream_bytes_per_s": seen["bytes"] / seen["seconds"],
        "frames_per_s": seen["frames"] / seen["seconds"],
        "longest_frame_ms": seen["longest"],
        "main_thread_cpu": busy_s / seen["seconds"],
        "dom_nodes": seen["nodes"],
        "blocks": seen["blocks"],
    }


async def _load(browser: Any, url: str) -> dict[str, float]:
    """With nothing kept from before."""
    context = await browser.new_context()
    page = await context.new_page()
    began_s = time.perf_counter()
    await page.goto(url)
    await page.wait_for_selector('#link[data-status="live"]')
    live_ms = 1e3 * (time.perf_counter() - began_s)
    told: dict[str, float] = await page.evaluate(PAINTS)
    await context.close()
    return told | {"live": live_ms}


async def _busy_s(session: Any) -> float:
    """Of the page's main thread, its processor time: what others do on the machine does not count."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


async def _measured(chromium: str, loads: int, watched_s: float) -> dict[str, Any]:
    sock = bind("127.0.0.1:0")
    server = HttpServer(uvicorn.Config(application(), lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        return await browsed(f"http://127.0.0.1:{sock.getsockname()[1]}/console", chromium, loads, watched_s)
    finally:
        server.should_exit = True
        await serving


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench console", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    figures: dict[str, Any] = {"instances": INSTANCES, "groups": GROUPS, "groups_shown_max": SHOWN * INSTANCES}
    figures |= gateway_cost(QUICK_STEPS if args.quick else STEPS)
    found = os.environ.get("HEADRACE_CHROMIUM") or next((at for name in NAMES if (at := shutil.which(name))), None)
    if found is None:
        say("no Chromium on this machine: the gateway's part alone")
    else:
        loads, watched_s = (QUICK_LOADS, QUICK_WATCHED_S) if args.quick else (LOADS, WATCHED_S)
        figures |= asyncio.run(_measured(found, loads, watched_s))
    for name, value in figures.items():
        say(f"{name:<22} {value:,.1f}" if isinstance(value, float) else f"{name:<22} {value}")
    if args.json:
        finish("console", argv, [SEED], plain(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
