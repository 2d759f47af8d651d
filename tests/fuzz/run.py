"""`make fuzz`: schemathesis against a live gateway for half of the time, atheris on every target for the rest.

`python -m tests.fuzz.run --seconds 120`; what it finds stands under .fuzz, and the exit status is 1. The two tools live
in an environment of their own (.venv-fuzz): schemathesis brings versions of its own of much that the mesh pins.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from headrace.cli.supervisor import Mesh
from headrace.mesh import keyfile
from tests.e2e.meshes import small_mesh
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
FOUND = ROOT / ".fuzz"
TOOLS = ROOT / ".venv-fuzz" / "bin"
SLACK_S = 120  # a run that does not end by itself is broken
SEED = 20261129
# Statuses that a specification cannot foresee (a header that is no header) are allowed; a 500 never is.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "use_after_free",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="in all, without starting")
    parser.add_argument("--only", choices=("openapi", *TARGETS), help="one of them, for all the time")
    args = parser.parse_args()
    FOUND.mkdir(exist_ok=True)
    names = [args.only] if args.only else ["openapi", *TARGETS]
    shares = {"openapi": args.seconds if args.only else args.seconds // 2}
    rest_s = args.seconds - (shares["openapi"] if "openapi" in names else 0)
    each_s = max(1, rest_s // max(1, len(names) - ("openapi" in names)))
    failed = [name for name in names if not (_openapi(shares[name]) if name == "openapi" else _atheris(name, each_s))]
    print(f"fuzz: {', '.join(failed)} failed; see {FOUND}" if failed else "fuzz: nothing found")
    return bool(failed)


def _atheris(name: str, seconds: int) -> bool:
    print(f"== {name}: {seconds} s", flush=True)
    log = FOUND / f"{name}.log"
    command = [str(TOOLS / "python"), "-m", "tests.fuzz.drive", name, str(seconds), str(FOUND)]
    with log.open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=out, cwd=ROOT, timeout=seconds + SLACK_S, check=False)
    told = [line for line in log.read_text(errors="replace").splitlines() if "number_of_executed" in line]
    print(f"   {told[-1].split()[-1] if told else '?'} inputs, {'well' if done.returncode == 0 else f'see {log}'}")
    return done.returncode == 0


def _openapi(seconds: int) -> bool:
    print(f"== openapi: {seconds} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_against_a_mesh(Path(folder), seconds))


async def _against_a_mesh(folder: Path, seconds: int) -> bool:
    shown, key = keyfile.make("fuzz", ["generate", "batch", "operate", "metrics"])
    keyfile.write(folder / "keys.toml", [key])
    os.environ["HEADRACE_API_KEY"] = shown
    environment = {"HEADRACE_API_KEYS_FILE": str(folder / "keys.toml")}
    async with Mesh(small_mesh(folder / "mesh", gateways=1, environment=environment)) as mesh:
        command = [
            *(str(TOOLS / "schemathesis"), "run", f"{mesh.http_url}/openapi.json"),
            *("--header", f"Authorization: Bearer {shown}", "--checks", ",".join(CHECKS), "--seed", str(SEED)),
            *("--max-time", str(seconds), "--workers", "2", "--request-timeout", "20", "--continue-on-failure"),
            *("--no-color", "--generation-database", "none", "--warnings", "off"),
        ]
        process = await asyncio.create_subprocess_exec(*command, cwd=folder)  # it keeps a cache where it runs
        async with asyncio.timeout(seconds + SLACK_S):
            status = await process.wait()
        alive = all(mesh.alive(service) for service in mesh.ids)
        bugs = [service for service in mesh.ids if "Traceback" in mesh.logs(service)]
    if bugs or not alive:
        print(f"   tracebacks in {bugs}" if bugs else "   a service died")
    return status == 0 and alive and not bugs


if __name__ == "__main__":
    sys.exit(main())
