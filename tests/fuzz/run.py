"""`make fuzz`: schemathesis against a live gateway for half of the time, atheris on every target for the rest.

`python -m tests.fuzz.run --seconds 120`; what it finds stands under .fuzz, and the exit status is 1. The two tools live
in an environment of their own (.venv-fuzz): schemathesis brings versions of its own of much that the mesh pins.
"""

import argparse
import asyncio
import json
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
SLACK_S = 300  # a run that does not end by itself is broken; reading the specification alone may take a minute
SEED = 20261129
# Each has a share of schemathesis' time to itself: in one run with all others the first of them takes it all.
ANSWERS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")
# Statuses that a specification cannot foresee (a header that is no header) are allowed; a 500 never is.
CONFIG = """[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""  # 504: a timeout_s of a millisecond is over before anybody can answer
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
    """Each endpoint that answers for as long as all others together: their bodies are the largest."""
    shown, key = keyfile.make("fuzz", ["generate", "batch", "operate", "metrics"])
    keyfile.write(folder / "keys.toml", [key])
    (folder / "schemathesis.toml").write_text(CONFIG)
    os.environ["HEADRACE_API_KEY"] = shown
    environment = {"HEADRACE_API_KEYS_FILE": str(folder / "keys.toml")}
    async with Mesh(small_mesh(folder / "mesh", gateways=1, environment=environment)) as mesh:
        good = True
        for path in (*ANSWERS, ""):
            good &= await _schemathesis(mesh.http_url, shown, path, max(1, seconds // (len(ANSWERS) + 1)), folder)
        alive = all(mesh.alive(service) for service in mesh.ids)
        bugs = [service for service in mesh.ids if "Traceback" in mesh.logs(service)]
    if bugs or not alive:
        print(f"   tracebacks in {bugs}" if bugs else "   a service died")
    return good and alive and not bugs


async def _schemathesis(url: str, key: str, path: str, seconds: int, folder: Path) -> bool:
    """One path, or without one all but ANSWERS. A run that has tried nothing has found nothing: that is a failure."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    chosen = ("--include-path", path) if path else [word for one in ANSWERS for word in ("--exclude-path", one)]
    command = [
        *(str(TOOLS / "schemathesis"), "run", f"{url}/openapi.json", *chosen),
        *("--header", f"Authorization: Bearer {key}", "--checks", ",".join(CHECKS), "--seed", str(SEED)),
        # Its phase "coverage" enumerates a schema: of a chat's that takes minutes before the first request.
        *("--phases", "fuzzing" if path else "fuzzing,stateful", "--max-time", str(seconds)),
        *("--workers", "2", "--request-timeout", "20", "--continue-on-failure", "--no-color"),
        *("--generation-database", "none", "--warnings", "off"),
        *("--report", "json", "--report-json-path", str(report)),
    ]
    log = FOUND / f"openapi{path.replace('/', '-')}.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=out, stderr=out)
        try:  # it keeps a cache where it runs
            async with asyncio.timeout(seconds + SLACK_S):
                status = await process.wait()
        except TimeoutError:
            process.kill()
            status = await process.wait()
    told = json.loads(report.read_text() or "{}") if report.exists() else {}  # empty: it was killed
    cases = told.get("test_cases", {}).get("generated", 0)
    operations = told.get("operations", {})
    print(
        f"   {path or 'the others'}: {cases} cases, {operations.get('tested', 0)} of {operations.get('selected', '?')} "
        f"operations, {'well' if status == 0 and cases else f'see {log}'}",
        flush=True,
    )
    return status == 0 and cases > 0


if __name__ == "__main__":
    sys.exit(main())
