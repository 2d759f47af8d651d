"""How the commands speak where nobody watches a terminal."""

import pytest

from headrace.cli.view import Console


def test_a_table_that_goes_into_a_file_is_not_cut_to_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"a-long-column-{number}" for number in range(7)]
    Console().table("drill", names, [["x"] * 7])
    heads = next(line for line in capsys.readouterr().out.splitlines() if names[0] in line)
    assert heads.split() == names
