"""`headrace keys` as words on a command line: what it shows, what it keeps, and what a gateway makes of it."""

from pathlib import Path

import pytest

from headrace.cli.main import main
from headrace.core.errors import Unauthenticated
from headrace.mesh.keyring import Keys


def _said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["keys", *words])
    return status, capsys.readouterr().out


def _good(file: Path, shown: str) -> bool:
    try:
        Keys.read(str(file)).find(f"Bearer {shown}")
    except Unauthenticated:
        return False
    return True


def test_a_key_from_its_making_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.toml"
    here = ("--file", str(file))
    status, out = _said(capsys, *here, "add", "--tenant", "alice", "--requests-per-min", "60", "--days", "9")
    shown = out.splitlines()[0].strip()
    key_id = shown.split("-")[1]
    assert (status, shown.startswith("hr-")) == (0, True)
    assert shown not in file.read_text()
    assert shown.split("-", 2)[2] not in file.read_text()
    _, listed = _said(capsys, *here, "list")
    assert key_id in listed
    assert "60 requests in a minute" in listed.replace("\n", " ")
    assert _good(file, shown)
    _, out = _said(capsys, *here, "rotate", key_id, "--grace", "60")
    fresh = out.splitlines()[0].strip()
    assert (_good(file, shown), _good(file, fresh)) == (True, True)
    _said(capsys, *here, "rotate", key_id)
    assert not _good(file, shown)
    _said(capsys, *here, "revoke", key_id)
    assert not _good(file, fresh)
    assert "revoked" in _said(capsys, *here, "list")[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--file", "keys.txt", "list"), "must end in .toml"),
        (("add", "--tenant", "a", "--scopes", "root"), "no scope 'root'"),
        (("revoke", "nobody"), "no key 'nobody'"),
        (("add", "--tenant", "a\nb"), "cannot be written"),
    ],
)
def test_what_it_refuses(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keys", *words]) == 1
    told = capsys.readouterr()
    assert why in (told.out + told.err).replace("\n", " ")
