"""Does what a how-to page says, in a copy of the repository: writes its files, makes its changes, runs its commands.

    python -m tests.howto.following docs/how-to/*.md      all of it; meshes and simulations take minutes

docs/how-to/index.md says which block means what.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs/how-to").glob("*.md") if path.stem != "index")
COMMAND_S = 600.0  # a mesh's start, a simulation and a calibration are well within
_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TESTING = ".venv/bin/python -m pytest"


class Rotten(AssertionError):
    """A page says what is not so."""


@dataclass(frozen=True, slots=True)
class Block:
    kind: str  # diff, sh, text, or the language of a file
    file: str  # from the repository's root; empty: none
    text: str

    @property
    def tests(self) -> bool:
        """Whether it is shell that runs tests and nothing else."""
        return self.kind == "sh" and all(line.startswith(TESTING) for line in self.text.splitlines())


def blocks(page: Path) -> list[Block]:
    return [Block(kind, file or "", text) for kind, file, text in _FENCE.findall(page.read_text())]


def copied(folder: Path) -> Path:
    """The repository as it stands, what is about to join it included, with this checkout's .venv."""
    names = _git("ls-files", "--cached", "--others", "--exclude-standard")
    for name in names:
        source, target = ROOT / name, folder / name
        if source.is_file() and not source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return folder


def _git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.splitlines()


def write(block: Block, folder: Path) -> None:
    """A file, or a change in one. Raises Rotten: what the change is about does not stand there once."""
    path = folder / block.file
    if block.kind != "diff":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return
    lines = block.text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    after = "".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text()
    if text.count(before) != 1:
        raise Rotten(f"{block.file} has these lines {text.count(before)} times:\n{before}")
    path.write_text(text.replace(before, after))


def run(block: Block, folder: Path) -> str:
    """What a block of shell prints. Raises Rotten: it fails, or takes too long."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{folder / 'libs'}", "COLUMNS": "160"}
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
        )
    except subprocess.TimeoutExpired as error:
        raise Rotten(f"not done in {COMMAND_S:.0f} s: {block.text}") from error
    if done.returncode:
        raise Rotten(f"{block.text}\nended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def check(block: Block, said: str) -> None:
    """Each line shown is a line that came, `...` standing for anything."""
    came = [line.rstrip() for line in said.splitlines()]
    for line in block.text.splitlines():
        wanted = re.compile(".*".join(re.escape(piece) for piece in line.rstrip().split("...")))
        if line.strip() and not any(wanted.fullmatch(each) for each in came):
            raise Rotten(f"the page shows {line!r}; what came was:\n{said}")


def follow(page: Path, folder: Path) -> Iterator[str]:
    """All of a page; says what it has done."""
    said = ""
    for block in blocks(page):
        if block.file:
            write(block, folder)
            yield f"wrote {block.file}"
        elif block.kind == "sh":
            said = run(block, folder)
            yield f"ran {block.text.strip()}\n{said}"
        elif block.kind == "text":
            check(block, said)


def main(words: list[str]) -> int:
    for page in [Path(word).resolve() for word in words] or PAGES:
        with TemporaryDirectory(prefix="howto-") as folder:
            print(f"== {page.relative_to(ROOT)}", flush=True)
            try:
                for step in follow(page, copied(Path(folder))):
                    print(step, flush=True)
            except Rotten as error:
                print(f"{page.relative_to(ROOT)}: {error}", file=sys.stderr)
                return 1
            finally:
                _stop(Path(folder))
    print("every page does what it says")
    return 0


def _stop(folder: Path) -> None:
    """A mesh that a page which broke has left."""
    if (folder / ".howto").exists():
        words = [sys.executable, "-m", "headrace.cli.main", "down", "--data-dir", str(folder / ".howto")]
        subprocess.run(words, cwd=folder, capture_output=True, timeout=180, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
