"""Where figures come from: complete in a checkout, without a commit elsewhere."""

import re
import subprocess
from pathlib import Path

from headrace.report.provenance import commit, provenance


def test_the_head_has_the_five_keys() -> None:
    head = provenance(["headrace", "simulate", "a scenario.toml"], [3, 1]).head()
    assert set(head) == {"machine", "date", "commit", "seeds", "command"}
    assert head["command"] == "headrace simulate 'a scenario.toml'"
    assert head["seeds"] == [3, 1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", head["date"])
    assert "cores" in head["machine"]


def test_the_commit_is_that_of_the_checkout_alone(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    _git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    _git(tmp_path, "add", "file")
    _git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "m")
    clean = commit(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{7,}", clean)
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{clean}+"
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert commit(inside) == ""


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, timeout=30)
