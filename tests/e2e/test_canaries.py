"""What clients send is nowhere that operators look: canaries through a live mesh at debug level, every request traced.

Prompts, media, keys and answers stand in the journal, the blobs, the results and Redis, which is what those are for
(SECURITY.md). They never stand in a log, a span, a metric, the audit file or the state that commands read.
"""

import asyncio
import base64
import io
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image, PngImagePlugin

from headrace.cli.supervisor import Mesh
from headrace.client import AsyncClient, HeadraceError, Message
from headrace.client import Image as Picture
from headrace.mesh import keyfile
from tests.e2e.meshes import small_mesh

pytestmark = pytest.mark.timeout(120)
CHAT = "/v1/chat/completions"
WORDS = (
    "prompt",
    "system",
    "media",
    "stop",
    "flow",
    "idempotency",
    "model",
    "slo",
    "role",
    "url",
    "wrongkey",
    "schema",
    "completion",
    "instructions",
    "item",
    "callarguments",
    "tool",
    "regex",
    "embedding",
    "tensor",
    "customid",
    "filename",
    "line",
    "metadata",
)
CANARY = {word: f"kanarienvogel-{word}-7f3a" for word in WORDS}


def picture() -> bytes:
    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("comment", CANARY["media"])
    Image.new("RGB", (40, 30), (9, 200, 30)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


class Scene:
    def __init__(self, mesh: Mesh, shown: str, folder: Path) -> None:
        self.mesh, self.shown, self.folder = mesh, shown, folder
        self.answers: list[str] = []

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.shown}"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("canaries")
    shown, key = keyfile.make("tenant-a", ["generate", "batch", "operate", "metrics"])
    keyfile.write(folder / "keys.toml", [key])
    environment = {
        "HEADRACE_LOG_LEVEL": "debug",
        "HEADRACE_TRACE_FILE": str(folder / "spans.jsonl"),
        "HEADRACE_TRACE_SAMPLE": "1",
        "HEADRACE_AUDIT_FILE": str(folder / "audit.jsonl"),
        "HEADRACE_API_KEYS_FILE": str(folder / "keys.toml"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_API_KEY", shown)  # the launcher's, as an operator
        config = small_mesh(folder / "mesh", decode=2, environment=environment)
        async with Mesh(config) as mesh:
            yield Scene(mesh, shown, folder)


def bodies() -> Iterator[tuple[str, dict[str, Any], int]]:
    """What is asked, and how it ends: well, or in every kind of refusal that could quote its input."""
    uri = "data:image/png;base64," + base64.b64encode(picture()).decode()
    broken = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + CANARY["media"].encode()).decode()
    text = {"type": "text", "text": CANARY["prompt"]}
    system = {"role": "system", "content": CANARY["system"]}

    def user(*parts: dict[str, Any]) -> dict[str, Any]:
        return {"role": "user", "content": [*parts, text]}

    def image(url: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": url}}

    good = {"messages": [system, user(image(uri))], "max_tokens": 20, "stop": [CANARY["stop"]], "ignore_eos": True}
    yield "good", good, 200
    yield "model", good | {"model": CANARY["model"]}, 404
    yield "class", good | {"slo_class": CANARY["slo"]}, 400
    yield "role", good | {"messages": [{"role": CANARY["role"], "content": CANARY["prompt"]}]}, 400
    yield "broken media", good | {"messages": [user(image(broken))]}, 400
    yield "url", good | {"messages": [user(image(f"https://{CANARY['url']}.example/x"))]}, 403
    yield "not a url", good | {"messages": [user(image(CANARY["url"]))]}, 400
    yield "wrong type", good | {"max_tokens": CANARY["schema"]}, 400
    yield "too long", good | {"messages": [user({"type": "text", "text": CANARY["prompt"] * 60_000})]}, 413
    yield "stop", good | {"stop": [CANARY["stop"] * 100]}, 400


def others() -> Iterator[tuple[str, str, dict[str, Any], int]]:
    """The same of the endpoints beside the chat."""
    word, media = CANARY["completion"], "data:image/png;base64," + base64.b64encode(picture()).decode()
    text = {"prompt": [word, CANARY["prompt"]], "max_tokens": 20, "ignore_eos": True, "stop": CANARY["stop"]}
    yield "completions", "/v1/completions", text, 200
    yield "completions: role", "/v1/completions", text | {"suffix": word}, 400
    yield "completions: a field", "/v1/completions", text | {word: word}, 400
    parts = [{"type": "input_text", "text": CANARY["item"]}, {"type": "input_image", "image_url": media}]
    call = {
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": json.dumps({"x": CANARY["callarguments"]}),
    }
    items = [call, {"type": "function_call_output", "call_id": "c", "output": CANARY["item"]}]
    tool = {"type": "function", "name": "f", "description": CANARY["tool"], "parameters": {"type": "object"}}
    asked = {
        "input": [{"role": "user", "content": parts}, *items],
        "instructions": CANARY["instructions"],
        "tools": [tool],
        "metadata": {"x": CANARY["metadata"]},
        "max_output_tokens": 20,
    }
    yield "responses", "/v1/responses", asked | {"tool_choice": "none", "ignore_eos": True}, 200
    yield "responses: a call", "/v1/responses", asked | {"tool_choice": "required", "max_output_tokens": 60}, 200
    yield "responses: an item", "/v1/responses", asked | {"input": [{"type": CANARY["item"]}]}, 400
    yield "responses: kept", "/v1/responses", asked | {"previous_response_id": CANARY["item"]}, 400
    yield "a regex", CHAT, next(bodies())[1] | {"guided_regex": f"({CANARY['regex']}"}, 400
    yield "embeddings", "/v1/embeddings", {"input": [CANARY["embedding"]]}, 200
    yield "embeddings: too long", "/v1/embeddings", {"input": [CANARY["embedding"] * 200]}, 400
    yield "embeddings: model", "/v1/embeddings", {"input": "x", "model": CANARY["model"]}, 404
    tensor = {"text_input": CANARY["tensor"], "parameters": {"max_tokens": 20, "ignore_eos": True}}
    yield "tensors", "/v2/models/profile-tiny/generate", tensor, 200
    yield (
        "tensors: a parameter",
        "/v2/models/profile-tiny/generate",
        tensor | {"parameters": {CANARY["tensor"]: 1}},
        400,
    )


def answers_of(reply: Any) -> Iterator[str]:
    """Whatever endpoint said them."""
    yield from (choice.get("text") or choice["message"]["content"] for choice in reply.get("choices", ()))
    yield from (part["text"] for item in reply.get("output", ()) for part in item.get("content", ()))
    yield from filter(None, [reply.get("text_output")])


async def test_asked_beside_the_chat(scene: Scene) -> None:
    async with httpx.AsyncClient(base_url=scene.mesh.http_url, timeout=60, headers=scene.auth) as http:
        for name, path, body, status in others():
            reply = await http.post(path, json=body)
            assert reply.status_code == status, (name, reply.text)
            scene.answers += answers_of(reply.json()) if status == 200 else ()


async def test_asked_in_a_batch(scene: Scene) -> None:
    """A line that is answered and one that is refused; and a file with lines that are none."""
    body = {"messages": [{"role": "user", "content": CANARY["line"]}], "max_tokens": 20, "ignore_eos": True}
    line = {"method": "POST", "url": CHAT}
    lines = [
        line | {"custom_id": CANARY["customid"], "body": body},
        line | {"custom_id": "2", "body": body | {"model": CANARY["model"]}},
    ]
    good, broken = "\n".join(map(json.dumps, lines)), json.dumps(lines[0] | {"url": CANARY["line"]})
    async with httpx.AsyncClient(base_url=scene.mesh.http_url, timeout=60, headers=scene.auth) as http:
        ended = [await _batch(http, data.encode()) for data in (good, broken)]
        assert [batch["status"] for batch in ended] == ["completed", "failed"]
        answers = (await http.get(f"/v1/files/{ended[0]['output_file_id']}/content")).text.splitlines()
        scene.answers += [one for line in answers for one in answers_of(json.loads(line)["response"]["body"])]
    assert len(answers) == 1


async def _batch(http: httpx.AsyncClient, data: bytes) -> Any:
    """To its end."""
    file = await http.post("/v1/files", files={"file": (CANARY["filename"], data)}, data={"purpose": "batch"})
    made = {"input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = (await http.post("/v1/batches", json=made | {"metadata": {"x": CANARY["metadata"]}})).json()
    while batch["status"] in ("validating", "in_progress", "finalizing"):
        await asyncio.sleep(0.2)
        batch = (await http.get(f"/v1/batches/{batch['id']}")).json()
    return batch


async def test_asked_in_every_way(scene: Scene) -> None:
    async with httpx.AsyncClient(base_url=scene.mesh.http_url, timeout=30) as http:
        for name, body, status in bodies():
            reply = await http.post(CHAT, json=body, headers=scene.auth)
            assert reply.status_code == status, (name, reply.text)
        headers = scene.auth | {"idempotency-key": CANARY["idempotency"], "x-headrace-flow": CANARY["flow"]}
        good = next(bodies())[1]
        reply = await http.post(CHAT, json=good, headers=headers)
        scene.answers.append(reply.json()["choices"][0]["message"]["content"])
        conflict = await http.post(CHAT, json=good | {"max_tokens": 3}, headers=headers)
        assert conflict.status_code == 409
        wrong = await http.post(CHAT, json=good, headers={"authorization": f"Bearer {CANARY['wrongkey']}"})
        assert wrong.status_code == 401
        assert (await http.get(f"/v1/requests/{CANARY['prompt']}/events", headers=scene.auth)).status_code == 400
        not_json = await http.post(CHAT, content=CANARY["prompt"].encode(), headers=scene.auth)
        assert not_json.status_code == 400


async def test_and_while_a_worker_dies(scene: Scene) -> None:
    """Recovery handles whole requests and their tokens: it must not speak of them."""
    question = [Message("system", CANARY["system"]), Message("user", [Picture(picture()), CANARY["prompt"]])]
    async with AsyncClient(scene.mesh.grpc_addr, api_key=scene.shown, trace=True) as client:
        answer = client.generate(question, max_tokens=80, ignore_eos=True, stop=[CANARY["stop"]])
        count, text, killed = 0, "", False
        async for delta in answer:
            count, text = count + len(delta.tokens), text + delta.text
            if count >= 8 and not killed:
                killed = True
                for worker in ("decode-0", "decode-1"):
                    scene.mesh.kill(worker, signal.SIGKILL)
        scene.answers.append(text)
        with pytest.raises(HeadraceError):
            await client.generate(question, model=CANARY["model"]).text()
        late = client.generate(question, max_tokens=2000, ignore_eos=True, timeout_s=0.3)
        with pytest.raises(HeadraceError):
            await late.text()


async def test_and_is_found_nowhere(scene: Scene) -> None:
    """Logs, spans, metrics, audit, state; in the clear, in base64, and in JSON's own way of writing."""
    time.sleep(1.0)  # noqa: ASYNC251 the exporters' last batch
    await scene.mesh.until_servable()
    told = await everything(scene)
    sizes = {name: len(data) for name, data in told.items()}
    assert len([name for name in told if name.endswith(".log")]) >= 9, sizes
    assert sizes["spans.jsonl"] > 5_000, "it was traced"
    words = [*CANARY.values(), scene.shown, scene.shown.split("-", 2)[2], *filter(None, scene.answers)]
    assert len(scene.answers) == 7, "a chat, two completions, a response, tensors, a line, a stream"
    for word in words:
        for form in (word.encode(), base64.b64encode(word.encode()), word.encode().hex().encode()):
            places = [name for name, data in told.items() if form.rstrip(b"=") in data]
            assert not places, f"{word!r} stands in {places}"
    assert base64.b64encode(picture())[40:80] not in b"".join(told.values())


async def everything(scene: Scene) -> dict[str, bytes]:
    mesh = scene.mesh
    told = {path.name: path.read_bytes() for path in (mesh.data_dir / "logs").iterdir()}
    told |= {path.name: path.read_bytes() for path in scene.folder.glob("*.jsonl")}
    told["run.json"] = (mesh.data_dir / "run.json").read_bytes()
    for server in ("nats", "redis"):
        told[f"{server}-server.log"] = (mesh.data_dir / server / f"{server}.log").read_bytes()
    async with httpx.AsyncClient(timeout=10) as http:
        for url in mesh.http_urls():
            reply = await http.get(f"{url}/metrics", headers=scene.auth)
            assert reply.status_code == 200
            told[f"{url}/metrics"] = reply.content
        port = next(event["metrics_port"] for event in mesh.events("governor-0") if "metrics_port" in event)
        told["governor-0/metrics"] = (await http.get(f"http://127.0.0.1:{port}/metrics")).content
    return told
