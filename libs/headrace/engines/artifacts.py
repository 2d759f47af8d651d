"""Files that are derived from a checkpoint once for each machine and then only mapped: the cache directory.

Several workers may start together: a file lock lets one build, a rename makes the result appear whole.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path


def cache_root(env: Mapping[str, str] = os.environ) -> Path:
    """HEADRACE_CACHE_DIR, else headrace under the user's cache directory (XDG base directory specification)."""
    if chosen := env.get("HEADRACE_CACHE_DIR"):
        return Path(chosen)
    base = env.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headrace"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """The folder, built in a temporary one if it is not there; concurrent callers wait for one builder."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, also by a crash
        if folder.exists():
            return folder
        _remove_leftovers(folder)
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.draft-", dir=folder.parent))
        build(draft)
        draft.rename(folder)
    return folder


def progress(message: str) -> None:
    """A line for the person who waits at a first start."""
    print(f"headrace: {message}", file=sys.stderr, flush=True)


def _remove_leftovers(folder: Path) -> None:
    """Drafts of builders that were killed; the lock says that nobody builds now."""
    for leftover in folder.parent.glob(f"{folder.name}.draft-*"):
        shutil.rmtree(leftover)
