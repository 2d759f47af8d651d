"""The documentation's site without building it: generated pages lack nothing, and links lead somewhere.

`make site` builds it, strictly; it needs packages that nothing else here does.
"""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from headrace.cli.main import COMMANDS
from headrace.cli.supervisor import Mesh
from headrace.mesh.servers import free_port
from services.gateway.openapi import document
from tests.e2e.asking import ask, request
from tests.e2e.meshes import small_mesh

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\bHEADRACE_[A-Z0-9_]*[A-Z0-9]\b")
# Names that are made up by those who mention them.
NO_VARIABLES = {"HEADRACE_X", "HEADRACE_NO_SUCH"}
METRIC = re.compile(r"^# TYPE (\S+) ", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FURTHER = ("README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "THIRD_PARTY.md")


def page_maker(name: str) -> ModuleType:
    """A module of deploy/docs."""
    folder = str(ROOT / "deploy/docs")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def sources(*rooms: str) -> Iterator[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *rooms]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    yield from (ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file())


def test_every_variable_is_on_the_page_of_settings() -> None:
    """Missing: a field, with a comment, of Settings or of a process' Options; or a line of reference/settings.py."""
    page = page_maker("reference.settings").page(ROOT)
    told, missing = set(VARIABLE.findall(page)) | NO_VARIABLES, dict[str, str]()
    for path in sources("libs", "services", "loadtest", "deploy", "compose.yaml", ".env.example"):
        if path.suffix in (".py", ".yaml", ".yml", ".sh", ".example", ".conf", "") and "deploy/docs" not in str(path):
            for name in set(VARIABLE.findall(path.read_text(errors="replace"))) - told:
                missing[name] = str(path.relative_to(ROOT))
    assert not missing


def test_every_setting_says_what_it_means() -> None:
    rows = [row for rows in page_maker("reference.settings").sections().values() for row in rows]
    assert [name for name, _, meaning in rows if not meaning] == []


def test_every_command_field_and_message_is_on_its_page() -> None:
    commands = page_maker("reference.commands").page(ROOT)
    assert [name for name in COMMANDS if f"\n## headrace {name}\n" not in commands] == []
    told, endpoints = document(""), page_maker("reference.endpoints").page(ROOT)
    assert [path for path in told["paths"] if f" {path}\n" not in endpoints] == []
    assert [name for name in told["components"]["schemas"] if f"\n## {name}\n" not in endpoints] == []
    protos = page_maker("reference.protos").page(ROOT)
    messages = [
        name
        for path in sources("protos/headrace/v1")
        for name in re.findall(r"^(?:message|service|enum) (\w+)", path.read_text(), re.MULTILINE)
    ]
    assert [name for name in messages if f"\n### {name}\n" not in protos] == []
    assert "`[[fleet.pools]]`" in page_maker("reference.toml_files").page(ROOT)


@pytest.mark.timeout(90)
async def test_every_metric_of_a_mesh_is_on_its_page(tmp_path: Path) -> None:
    told = {row[0] for rows in page_maker("reference.metrics").families().values() for row in rows}
    services = ("qm-0", "governor-0", "encoder-0", "prefill-0", "decode-0")
    addresses = {name: f"127.0.0.1:{free_port()}" for name in services}
    scraped = {name: {"HEADRACE_METRICS_ADDR": address} for name, address in addresses.items()}
    async with (
        Mesh(small_mesh(tmp_path, gateways=1, service_environment=scraped)) as mesh,
        httpx.AsyncClient(timeout=10) as http,
    ):
        await ask(mesh.grpc_addr, request("one", max_tokens=4))
        for name, address in {**addresses, "gateway-0": mesh.addresses.http["gateway-0"]}.items():
            text = (await http.get(f"http://{address}/metrics")).text
            found = set(METRIC.findall(text))
            assert found, name
            assert found <= told, f"{name} exports what the page lacks: {sorted(found - told)}"


def test_pictures_are_what_their_drawing_gives() -> None:
    """Else: python deploy/docs/pictures.py."""
    pictures = page_maker("pictures").PICTURES
    assert {path.stem for path in (ROOT / "docs/pictures").glob("*.svg")} == set(pictures)
    for name, draw in pictures.items():
        assert (ROOT / f"docs/pictures/{name}.svg").read_text() == draw().svg(), name


def pages() -> list[Path]:
    return [ROOT / name for name in FURTHER] + sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Within the repository, anchors too. Others are not followed: there may be no network."""
    dead = []
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text())):
        if ":" in target or target.startswith("/"):
            continue
        there = (page.parent / target).resolve() if target else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            dead.append(f"{target}#{anchor}")
    assert dead == []


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in HEADING.findall(FENCE.sub("", page.read_text()))}


def slug(heading: str) -> str:
    """As the site's and most code hosts' Markdown make it."""
    words = re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[- ]+", "-", words)
