"""Constants from a log: found again where the model made it, refused where the log does not tell."""

import json
from pathlib import Path

import numpy as np
import pytest

from headrace.cli.main import main
from headrace.control import fit, sensing
from headrace.control.constants import A100, H100, SensorKind
from headrace.control.fit import FitError, Log

TRUE = (100.0, 900.0, 0.022, 0.050)  # not those of any kind of ours


def step_response(*, hz: float = 2.0, noisy: bool = True, seconds: float = 600.0) -> Log:
    t = np.arange(0.0, seconds, 1.0 / hz)
    watts = np.where((t > 60) & (t < 360), 620.0, 120.0)
    clean = Log(t, watts, np.linspace(40.0, 60.0, len(t)))
    die = fit.answer(Log(t, watts, np.append(36.0, clean.temp_c[1:])), np.array(TRUE), 27.0)
    rng = np.random.default_rng(4)
    if not noisy:
        return Log(t, watts, die)
    return Log(t, sensing.power(SensorKind(), watts, rng), sensing.temperature(SensorKind(), die, rng) + 0.5)


@pytest.mark.parametrize("near", [H100, A100])
def test_a_step_response_gives_the_constants_back(near: object) -> None:
    found = fit.fit(step_response(), near)  # type: ignore[arg-type]
    assert list(found.values.values()) == pytest.approx(TRUE, rel=0.15)
    assert found.resistance == pytest.approx(0.072, rel=0.03)
    assert found.inlet_c == pytest.approx(27.0, abs=1.0)
    assert all(
        abs(value - true) < 5 * error
        for value, true, error in zip(found.values.values(), TRUE, found.errors.values(), strict=True)
    )


def rows(count: int = 300, **columns: object) -> dict[str, object]:
    t = np.arange(count, dtype=float)
    usual = {"t_s": t, "power_w": np.where(t > 100, 500.0, 100.0), "temp_c": np.linspace(40, 70, count)}
    return usual | columns


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (rows(30), "30 readings"),
        (rows(100), "covers 99 s"),
        (rows(temp_c=np.full(300, 50.0)), "temp_c: moves by 0.0 K"),
        (rows(power_w=np.full(300, 400.0)), "power_w: moves by 0.0 W"),
        (rows(t_s=np.append(np.arange(299.0), 5.0)), "does not rise after row 299"),
        (rows(temp_c=np.append(np.linspace(40, 70, 299), np.nan)), "not a number"),
    ],
)
def test_a_log_that_says_nothing_is_refused(columns: dict[str, np.ndarray], problem: str) -> None:
    with pytest.raises(FitError, match=problem):
        Log(**columns)


def test_what_two_nodes_do_not_explain_is_refused() -> None:
    log = step_response(noisy=False)
    wandering = Log(log.t_s, log.power_w, log.temp_c + 8.0 * np.sin(log.t_s / 20.0))
    with pytest.raises(FitError, match="two nodes miss it"):
        fit.fit(wandering, H100)


def test_the_command_reads_a_file_and_says_what_is_wrong_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, path = step_response(hz=1.0), tmp_path / "log.csv"
    lines = [f"{t},{w:.1f},{c:.0f},x" for t, w, c in zip(log.t_s, log.power_w, log.temp_c, strict=True)]
    path.write_text("t_s,power_w,temp_c,note\n" + "\n".join(lines))
    assert main(["plant", "fit", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rmse_k"] < 1.0
    path.write_text("t_s,power_w\n1,2\n")
    assert main(["plant", "fit", str(path)]) == 2
    assert "has no column 'temp_c'" in capsys.readouterr().err
    path.write_text("t_s,power_w,temp_c\n1,2,warm\n")
    assert main(["plant", "fit", str(path)]) == 2
    assert "line 2: temp_c = 'warm' is not a number" in capsys.readouterr().err
