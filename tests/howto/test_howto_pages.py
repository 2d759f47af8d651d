"""The how-to pages' files, changes and first tests, in one copy: four additions that must not get in one another's way.

Their other tests, meshes and simulations are `make howto`.
"""

import shlex
from pathlib import Path

import pytest

from tests.howto.following import PAGES, TESTING, Block, Rotten, blocks, check, copied, run, write


@pytest.mark.timeout(110)
def test_what_the_pages_add_passes_their_first_tests(tmp_path: Path) -> None:
    """In one process: starting pytest takes longer than most of the tests."""
    folder = copied(tmp_path / "copy")
    for page in PAGES:
        for block in blocks(page):
            if block.file:
                write(block, folder)
    assert len(PAGES) == 4
    run(Block("sh", "", together(PAGES)), folder)


def together(pages: list[Path]) -> str:
    """One command for the first tests of all pages: their files, and what each page chooses of them."""
    files, chosen = list[str](), list[str]()
    for page in pages:
        words = shlex.split(next(block.text for block in blocks(page) if block.tests))
        own = [word for word in words if word.startswith("tests/")]
        files += own
        chosen += [words[words.index("-k") + 1]] if "-k" in words else [Path(name).stem for name in own]
    return f"{TESTING} -p no:cacheprovider {' '.join(files)} -k {shlex.quote(' or '.join(chosen))}"


def test_a_page_that_has_rotted_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\n")
    write(Block("diff", "a.py", " one\n+more\n-two\n"), tmp_path)
    assert (tmp_path / "a.py").read_text() == "one\nmore\n"
    with pytest.raises(Rotten, match="0 times"):
        write(Block("diff", "a.py", " one\n-two\n"), tmp_path)
    check(Block("text", "", "it took ... s\n"), "begun\nit took 1.5 s\n")
    with pytest.raises(Rotten, match="what came was"):
        check(Block("text", "", "it took ... s\n"), "it failed\n")
