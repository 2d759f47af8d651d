"""The TypeScript client against the shared mesh (under TLS in test_secure.py), its stubs and its package."""

import base64
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from headrace.cli.supervisor import Mesh
from headrace.v1 import common_pb2, gateway_pb2
from tests.e2e.node import PACKAGE, run_tests


async def test_answers(mesh: Mesh) -> None:
    """One of its tests kills the first gateway, which the mesh starts again."""
    names = ("gateway-0", "gateway-1")
    pids = [mesh.pid(name) for name in names]
    await run_tests(
        "answers", {"grpc": [mesh.addresses.grpc[name] for name in names], "http": mesh.http_url, "pids": pids}
    )
    assert mesh.pid("gateway-0") != pids[0] or not mesh.alive("gateway-0"), "it was killed under way"


async def test_refusals() -> None:
    """By a server of its own that refuses everything."""
    await run_tests("refusals", {"grpc": [], "http": "", "pids": []})


def test_its_stubs_are_of_these_protos() -> None:
    """A generated file holds its descriptor but for the imports, so that this needs no Node; `make check` compares all
    of it."""
    for stubs in (common_pb2, gateway_pb2):
        name = stubs.DESCRIPTOR.name.replace(".proto", "_pb.ts")
        (packed,) = re.findall(r'fileDesc\("([^"]*)"', (PACKAGE / "src" / "gen" / name).read_text())
        found = FileDescriptorProto.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
        wanted = FileDescriptorProto.FromString(stubs.DESCRIPTOR.serialized_pb)
        wanted.ClearField("dependency")
        assert found == wanted, f"{name} is old: `make proto`"


def test_what_is_packed_can_be_imported(tmp_path: Path) -> None:
    if shutil.which("npm") is None or not (PACKAGE / "node_modules").exists():
        pytest.skip("the TypeScript client is not built: `make test-typescript` builds it")
    command = ("npm", "pack", "--silent", "--pack-destination", str(tmp_path))
    subprocess.run(command, cwd=PACKAGE, check=True, timeout=60, capture_output=True)
    (packed,) = tmp_path.glob("headrace-*.tgz")
    with tarfile.open(packed) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    assert {"package/LICENSE", "package/README.md", "package/dist/index.js", "package/dist/wire.d.ts"} <= set(names)
    assert all(name.endswith((".js", ".d.ts", "package.json", "LICENSE", "README.md")) for name in names)
    assert not any("test" in name for name in names)
    (tmp_path / "node_modules").symlink_to(PACKAGE / "node_modules")
    program = "const { Client } = await import('./package/dist/index.js'); new Client('localhost:1').close()"
    subprocess.run(("node", "--input-type=module", "-e", program), cwd=tmp_path, check=True, timeout=30)
