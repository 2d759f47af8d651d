"""A door before two cells: leaf nodes of real nats-servers bring statuses, HTTP servers stand where gateways do."""

import argparse
import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from headrace.cli import certs, credentials
from headrace.core.cells import SPREADS, CellSight, Door, home
from headrace.mesh import permissions, subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.login import NatsLogin
from headrace.mesh.servers import find_nats, free_port
from headrace.v1 import queue_pb2
from services.gateway.cells.hearing import Hearing
from services.gateway.cells.options import Options
from services.gateway.cells.proxy import Proxy
from services.gateway.cells.serving import app
from services.gateway.routes import bind, server_of

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parents[2]
PASSWORDS = {role: f"{role}-word" for role in permissions.ROLES}


def status(slots: int, running: int) -> queue_pb2.CellStatus:
    return queue_pb2.CellStatus(
        classes=[queue_pb2.ClassStatus(slo_class="interactive", queued=2, running=running, estimated_wait_s=-1.0)],
        workers=[
            queue_pb2.WorkerStatus(worker="d", stages=["decode"], slots=slots),
            queue_pb2.WorkerStatus(worker="e", stages=["encode"], slots=99),
            queue_pb2.WorkerStatus(worker="l", stages=["decode"], slots=99, draining=True),
        ],
        models=[queue_pb2.ModelStatus(model="m", servable=True), queue_pb2.ModelStatus(model="n")],
    )


# --- leaf nodes ---


@dataclass
class Buses:
    doors: str
    cells: dict[str, str]


def _start(stack: ExitStack, path: Path) -> None:
    command = [str(find_nats().path), "--config", str(path)]
    process = subprocess.Popen(command, env={"SERVER_NAME": "doors-0"}, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)


@pytest.fixture
def buses(tmp_path: Path) -> Iterator[Buses]:
    """The doors' server and two cells', the second of two servers, with the accounts that `headrace certs` writes."""
    with ExitStack() as stack:

        def start(name: str, text: str) -> None:
            path = tmp_path / f"{name}.conf"
            path.write_text(text)
            _start(stack, path)

        hub, leaves = free_port(), free_port()
        logins = {"west": "west-word", "east": "east-word"}
        listen = f"listen: 127.0.0.1:{hub}\nleafnodes {{ listen: 127.0.0.1:{leaves} }}\n"
        start("doors", listen + permissions.doors("door-word", logins))
        cells = {}
        for cell, servers in (("west", 1), ("east", 2)):
            ports, routes = [free_port() for _ in range(servers)], [free_port() for _ in range(servers)]
            accounts = permissions.leaf(PASSWORDS, cell, [f"nats-leaf://{cell}:{logins[cell]}@127.0.0.1:{leaves}"], "")
            for at in range(servers):
                others = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
                ring = f"cluster {{ name: {cell}, listen: 127.0.0.1:{routes[at]}, routes: [{others}] }}\n"
                store = f"jetstream {{ store_dir: {json.dumps(str(tmp_path / f'{cell}-{at}'))} }}\n"
                named = f"server_name: {cell}-{at}\nlisten: 127.0.0.1:{ports[at]}\n"
                start(f"{cell}-{at}", named + store + (ring if servers > 1 else "") + accounts)
            cells[cell] = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
        yield Buses(f"nats://127.0.0.1:{hub}", cells)


async def _login(url: str, user: str, password: str) -> Bus:
    async with asyncio.timeout(20.0):
        while True:
            try:
                return await Bus.connect(url, user, login=NatsLogin(user, password))
            except BadSetup:
                await asyncio.sleep(0.1)


async def test_statuses_reach_the_doors_once_each_and_nothing_else_does(buses: Buses) -> None:
    door = await _login(buses.doors, "door", "door-word")
    heard: list[tuple[str, bytes]] = []
    await door.subscribe_raw(subjects.CELL_STATUS, lambda subject, _r, _h, data: heard.append((subject.decode(), data)))
    managers = {cell: await _login(url, "queue_manager", "queue_manager-word") for cell, url in buses.cells.items()}
    workers = {cell: await _login(url, "worker", "worker-word") for cell, url in buses.cells.items()}
    inside: list[bytes] = []
    for worker in workers.values():
        await worker.subscribe_raw(subjects.CAPS, lambda _s, _r, _h, data: inside.append(data))
    async with asyncio.timeout(20.0):
        while {subject for subject, _ in heard} < {"hr.cells.west.status", "hr.cells.east.status"}:
            for manager in managers.values():
                await manager.publish(subjects.STATUS, b"early")
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.2)
    heard.clear()
    for number in range(5):
        for manager in managers.values():
            await manager.publish(subjects.STATUS, b"%d" % number)
    for worker in workers.values():
        await worker.publish(subjects.HEARTBEAT, b"not for doors")
    await door.publish(subjects.CAPS, b"a door commands nobody")
    await asyncio.sleep(0.5)
    found = {
        cell: sorted(data for subject, data in heard if subject == subjects.cell_status(cell)) for cell in managers
    }
    assert found == {cell: [b"0", b"1", b"2", b"3", b"4"] for cell in managers}
    assert len(heard) == 10
    assert not inside
    for bus in (door, *managers.values(), *workers.values()):
        await bus.close()


async def test_leaf_nodes_speak_tls_with_the_files_that_certs_makes(tmp_path: Path) -> None:
    """`headrace certs doors --behind west`, `... west --cell west --doors ...`, and deploy/nats-doors.conf."""
    parser = argparse.ArgumentParser()
    certs.add_arguments(parser)
    doors, west = tmp_path / "doors", tmp_path / "west"
    assert certs.run(parser.parse_args([str(doors), "--behind", "west"])) == 0
    west.mkdir()
    for name in ("ca.crt", "ca.key", "member.crt", "member.key"):  # one authority
        (west / name).write_bytes((doors / name).read_bytes())
    hub, watched, leaves, own = (free_port() for _ in range(4))
    url = f"tls://{(doors / 'nats-cell-west.creds').read_text().strip()}@127.0.0.1:{leaves}"
    assert certs.run(parser.parse_args([str(west), "--cell", "west", "--doors", url])) == 0
    assert certs.run(parser.parse_args([str(west), "--cell", "west"])) == 2
    text = (ROOT / "deploy/nats-doors.conf").read_text()
    ports = {"0.0.0.0:4222": hub, "0.0.0.0:8222": watched, "0.0.0.0:7422": leaves}
    for address, port in ports.items():
        text = text.replace(address, f"127.0.0.1:{port}")
    text = text.replace("include ../../run/headrace/", "include doors/").replace("/run/headrace", str(doors))
    (tmp_path / "doors.conf").write_text(text)
    leaf = (west / "nats-leaf.conf").read_text().replace(credentials.IN_CONTAINER, str(west))
    tls = f"tls {{ cert_file: {west}/member.crt, key_file: {west}/member.key, ca_file: {west}/ca.crt, verify: true }}"
    store = f"jetstream {{ store_dir: {tmp_path}/js }}"
    (tmp_path / "west.conf").write_text(f"server_name: west-0\nlisten: 127.0.0.1:{own}\n{store}\n{tls}\n{leaf}")
    heard: list[str] = []
    with ExitStack() as stack:
        for name in ("doors", "west"):
            _start(stack, tmp_path / f"{name}.conf")
        door = await _secure(doors, hub, "nats-door.creds")
        manager = await _secure(west, own, "nats-queue_manager.creds")
        await door.subscribe_raw(subjects.CELL_STATUS, lambda subject, _r, _h, _d: heard.append(subject.decode()))
        async with asyncio.timeout(20.0):
            while not heard:
                await manager.publish(subjects.STATUS, b"x")
                await asyncio.sleep(0.1)
        await manager.close()
        await door.close()
    assert set(heard) == {"hr.cells.west.status"}


async def _secure(papers: Path, port: int, login: str) -> Bus:
    found = {"HEADRACE_NATS_URL": f"tls://127.0.0.1:{port}", "HEADRACE_NATS_CREDS_FILE": str(papers / login)}
    settings = Settings.from_env(found | credentials.tls_variables(papers))
    async with asyncio.timeout(20.0):
        while True:
            try:
                return await Bus.open(settings, "test")
            except BadSetup:
                await asyncio.sleep(0.1)


def test_a_status_says_what_a_door_looks_at() -> None:
    door = Door()
    hearing = Hearing(door, {"west": "http://a"})
    hearing.on_status("hr.cells.west.status", status(8, 3).SerializeToString(), 5.0)
    hearing.on_status("hr.cells.moon.status", status(8, 3).SerializeToString(), 5.0)
    hearing.on_status("hr.cells.west.status", b"\xff\xff", 6.0)
    assert [known.sight for known in door.there(5.1)] == [CellSight("west", 8, 5, 0.0, frozenset({"m"}))]


# --- requests ---


@dataclass
class Cell:
    """Where a cell's gateway is: answers by `mode`."""

    name: str
    mode: str = "ok"
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.url.path}")
        body = await request.body()
        if self.mode == "full":
            return JSONResponse({"error": "full"}, 429, {"retry-after": "7"})
        if request.url.path.endswith("/events"):
            mine = request.url.path.split("/")[3].startswith(self.name[0] * 4)
            return JSONResponse({"cell": self.name}, 200 if mine else 404)
        if request.url.path == "/v1/models":
            return JSONResponse(
                {"object": "list", "data": [{"id": "m", "servable": self.name == "west"}, {"id": self.name}]}
            )
        if self.mode == "breaks":
            return StreamingResponse(self._half(), media_type="text/event-stream")
        said = {"cell": self.name, "body": body.decode(), "key": request.headers.get("authorization", "")}
        return JSONResponse(said, headers={"x-request-id": ("e" if self.name == "west" else "w") * 32})

    async def _half(self) -> AsyncIterator[bytes]:
        yield b"data: half\n\n"
        raise ConnectionResetError("the cell is gone")


@asynccontextmanager
async def listening(answering: Starlette) -> AsyncIterator[str]:
    sock = bind("127.0.0.1:0")
    server = server_of(answering)
    running = asyncio.ensure_future(server.serve(sockets=[sock]))
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    await running


@dataclass
class Scene:
    door: Door
    cells: dict[str, Cell]
    client: httpx.AsyncClient
    proxy: Proxy


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """West is emptier than east: it is asked first. North is heard, and nobody listens there."""
    cells = {name: Cell(name) for name in ("west", "east")}
    door, now = Door(SPREADS["least-load"], stale_s=1e9), [0.0]
    for name, requests in (("west", 0), ("east", 500), ("north", 900)):
        door.heard(CellSight(name, 1000, requests, 0.0, frozenset({"m"})), 0.0)
    async with listening(_of(cells["west"])) as west, listening(_of(cells["east"])) as east:
        urls = {"west": west, "east": east, "north": f"http://127.0.0.1:{free_port()}"}
        clients = {name: httpx.AsyncClient(base_url=url, trust_env=False) for name, url in urls.items()}
        proxy = Proxy(door, clients, clock=lambda: now[0], draw=lambda: 0.0)
        async with listening(app(proxy, door)) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield Scene(door, cells, client, proxy)
        for each in clients.values():
            await each.aclose()


def _of(cell: Cell) -> Starlette:
    return Starlette(routes=[Route("/{path:path}", cell.answer, methods=["GET", "POST", "DELETE"])])


CHAT = "/v1/chat/completions"


async def test_a_request_goes_to_the_emptiest_cell_with_all_that_it_says(scene: Scene) -> None:
    answer = await scene.client.post(CHAT, json={"model": "m"}, headers={"authorization": "Bearer hr-1"})
    assert answer.json() == {"cell": "west", "body": '{"model":"m"}', "key": "Bearer hr-1"}
    assert answer.headers["x-headrace-cell"] == "west"


async def test_a_full_cell_is_passed_over_and_the_last_answer_is_told(scene: Scene) -> None:
    scene.cells["west"].mode = "full"
    assert (await scene.client.post(CHAT, json={"model": "m"})).json()["cell"] == "east"
    scene.cells["east"].mode = "full"
    scene.door.cells.pop("north")
    last = await scene.client.post(CHAT, json={"model": "m"})
    assert (last.status_code, last.headers["retry-after"]) == (429, "7")
    assert dict(scene.proxy.tally.elsewhere) == {"west": 2}


async def test_a_cell_that_is_not_there_costs_no_request(scene: Scene) -> None:
    scene.door.heard(CellSight("north", 1000, 0, 0.0, frozenset({"m"})), 0.0)
    scene.door.heard(CellSight("west", 1000, 10, 0.0, frozenset({"m"})), 0.0)
    answers = [(await scene.client.post(CHAT, json={"model": "m"})).json()["cell"] for _ in range(3)]
    assert answers == ["west"] * 3
    assert scene.proxy.tally.elsewhere["north"] == 1, "it rests"


async def test_an_answer_that_breaks_off_is_no_whole_answer(scene: Scene) -> None:
    scene.cells["west"].mode = "breaks"
    with pytest.raises(httpx.RemoteProtocolError):
        await scene.client.post(CHAT, json={"model": "m"})
    assert scene.cells["east"].asked == [], "its client has seen a part: it is not asked again elsewhere"


async def test_a_model_that_nobody_serves_is_for_a_gateway_to_refuse(scene: Scene) -> None:
    assert (await scene.client.post(CHAT, json={"model": "unheard"})).headers["x-headrace-cell"] == "west"


async def test_without_a_cell_it_is_a_503_with_a_time(scene: Scene) -> None:
    scene.door.cells.clear()
    answer = await scene.client.post(CHAT, json={"model": "m"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "no cell is heard" in answer.json()["error"]["message"]


async def test_a_request_is_found_by_its_id_wherever_it_is(scene: Scene) -> None:
    found = await scene.client.get(f"/v1/requests/{'e' * 32}/events?next_index=3")
    assert found.json()["cell"] == "east"
    missing = await scene.client.get(f"/v1/requests/{'0' * 32}/events")
    assert missing.status_code in (404, 503)


async def test_files_are_kept_at_their_owners_home(scene: Scene) -> None:
    homes = set()
    for number in range(12):
        key = f"Bearer hr-{number}"
        answer = await scene.client.post("/v1/files", content=b"x", headers={"authorization": key})
        homes.add(answer.json()["cell"] if answer.status_code == 200 else "north")
    assert homes == {"west", "east", "north"}
    assert home(["west"], "anything") == "west"


async def test_models_are_those_of_all_cells(scene: Scene) -> None:
    told = (await scene.client.get("/v1/models")).json()["data"]
    assert told == [{"id": "m", "servable": True}, {"id": "west", "servable": False}, {"id": "east", "servable": False}]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "1 to 256"),
        ("[[cell]]\nname = 'a'", "a name and a url"),
        ("[[cell]]\nname='a'\nurl='ftp://x'", "http"),
        ("x", ""),
    ],
)
def test_a_wrong_file_names_its_variable(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "cells.toml").write_text(text)
    with pytest.raises(BadSetup, match=rf"HEADRACE_CELLS_FILE.*{why}"):
        Options.from_env({"HEADRACE_CELLS_FILE": str(tmp_path / "cells.toml")})
    with pytest.raises(BadSetup, match="HEADRACE_CELLS_FILE is missing"):
        Options.from_env({})
