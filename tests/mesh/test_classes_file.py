"""HEADRACE_CLASSES_FILE: read once at start; whatever is wrong with it is said with its name."""

from pathlib import Path

import pytest

from headrace.core.slo import BUILT_IN
from headrace.mesh.classes import read_classes
from headrace.mesh.errors import BadSetup


def test_without_a_file_the_built_in_classes() -> None:
    assert read_classes("") is BUILT_IN


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text('default = "batch-1"\n[classes.batch-1]\nttft_s = 5\n')
    classes = read_classes(str(path))
    assert (classes.default, classes.named["batch-1"].ttft_s) == ("batch-1", 5.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [(b"[classes", "Expected"), (b"\xff\xfe", "utf-8"), (b"[classes.x]\nttft_s = 0", "classes.x.ttft_s"), (None, "No")],
    ids=["no TOML", "no text", "no sense", "no file"],
)
def test_what_is_wrong_with_it(tmp_path: Path, text: bytes | None, why: str) -> None:
    path = tmp_path / "classes.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(BadSetup, match=r"HEADRACE_CLASSES_FILE=.*classes\.toml") as caught:
        read_classes(str(path))
    assert why in str(caught.value)
