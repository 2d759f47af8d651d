"""The queue manager's decisions, told as transcripts in tapes/*.txt."""

from pathlib import Path

import pytest

from tests.core.transcript import Stage, read

TAPES = sorted((Path(__file__).parent / "tapes").glob("*.txt"))


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    stage = Stage()
    for step in read(path):
        done = stage.act(step)
        assert done == list(step.expected), f"{path.name}:{step.line}: {' '.join(step.words)}"


def test_there_are_transcripts() -> None:
    assert len(TAPES) >= 10
