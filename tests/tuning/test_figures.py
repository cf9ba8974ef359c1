"""Pictures of a study are drawn whatever it has come to, and importance finds the parameter that matters."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raregrade.schema import Choice, FloatRange, IntRange, Space
from raregrade.tuning.axis import Axis, round_values
from raregrade.tuning.figures import HISTORY, IMPORTANCE, PARALLEL, SLICE, parameter_importance, write_figures

SPACE: dict[str, Space] = {
    "alpha": FloatRange(low=0.1, high=2.0, log=True),
    "gamma": FloatRange(low=0.5, high=3.0),
    "layers": IntRange(low=1, high=4),
    "mode": Choice(choices=("hard", "soft", "a $ name_with_underscores")),
}


def make_trials(count: int, *, noise: float = 0.005) -> pd.DataFrame:
    """Trials of which alpha alone decides the objective."""
    rng = np.random.default_rng(3)
    trials = pd.DataFrame({"number": range(count), "state": "COMPLETE", "source": "sampler", "epochs": 27})
    trials["params_alpha"] = np.exp(rng.uniform(np.log(0.1), np.log(2.0), count))
    trials["params_gamma"] = rng.uniform(0.5, 3.0, count)
    trials["params_layers"] = rng.integers(1, 5, count)
    trials["params_mode"] = [SPACE["mode"].choices[i] for i in rng.integers(0, 3, count)]  # type: ignore[union-attr]
    trials["value"] = 0.6 - 0.1 * np.log(trials["params_alpha"]) ** 2 + rng.normal(0, noise, count)
    return trials


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        assert min(image.size) >= 200
        found = image.convert("RGB").getcolors(maxcolors=2**24)
    assert found is not None
    return {colour for _, colour in found if isinstance(colour, tuple)}


def draw(trials: pd.DataFrame, folder: Path, space: dict[str, Space] | None = None) -> dict[str, set[tuple[int, ...]]]:
    paths = write_figures(trials, SPACE if space is None else space, folder, objective="val_qwk")
    assert [path.name for path in paths] == [HISTORY, IMPORTANCE, SLICE, PARALLEL]
    return {path.name: colours(path) for path in paths}


ORANGE, BLUE, GREEN = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73)


def test_a_finished_study_is_drawn_with_its_best_trial_marked(tmp_path: Path) -> None:
    drawn = draw(make_trials(20), tmp_path)
    assert ORANGE in drawn[SLICE]
    assert ORANGE in drawn[PARALLEL]
    assert BLUE in drawn[IMPORTANCE]


def test_published_settings_and_failures_stand_out_in_the_history(tmp_path: Path) -> None:
    trials = make_trials(12)
    assert not {GREEN, ORANGE} & draw(trials, tmp_path)[HISTORY]
    trials.loc[1, "source"] = "paper"
    assert GREEN in draw(trials, tmp_path)[HISTORY]
    trials.loc[4, ["state", "value"]] = ["FAIL", np.nan]
    assert ORANGE in draw(trials, tmp_path)[HISTORY]


@pytest.mark.parametrize("finished", [0, 1, 2, 3])
def test_a_study_that_has_hardly_begun_is_drawn(tmp_path: Path, finished: int) -> None:
    trials = make_trials(5)
    trials.loc[finished:, "state"] = "PRUNED"
    trials.loc[4, ["state", "value"]] = ["FAIL", np.nan]
    draw(trials, tmp_path)


def test_no_trial_at_all_is_drawn(tmp_path: Path) -> None:
    draw(make_trials(3).iloc[:0], tmp_path)


def test_a_constant_objective_is_drawn_and_ranks_nothing(tmp_path: Path) -> None:
    trials = make_trials(12).assign(value=0.5)
    draw(trials, tmp_path)
    assert parameter_importance(trials, SPACE) == {}


def test_nothing_searched_is_drawn(tmp_path: Path) -> None:
    draw(make_trials(5), tmp_path, space={})


def test_values_outside_of_the_range_are_inside_the_picture() -> None:
    axis = Axis.of(FloatRange(low=1.0, high=10.0, log=True), pd.Series([2.0, 100.0, np.nan]))
    assert axis.fraction(pd.Series([1.0, 10.0, 100.0])).tolist() == pytest.approx([0, 0.5, 1])


def test_parameters_that_a_trial_lacks_or_numbers_as_choices_are_drawn(tmp_path: Path) -> None:
    trials = make_trials(10)
    trials["params_batch"] = [16.0, 32.0, *[64.0] * 7, np.nan]
    trials.loc[3, ["params_gamma", "params_mode"]] = [np.nan, None]
    draw(trials, tmp_path, space={**SPACE, "batch": Choice(choices=(16, 32, 64))})


def test_importance_finds_the_parameter_that_decides() -> None:
    found = parameter_importance(make_trials(40), SPACE)
    assert next(iter(found)) == "alpha"
    assert found["alpha"] > 0.7
    assert sum(found.values()) == pytest.approx(1)


def test_importance_ignores_trials_that_did_not_finish() -> None:
    trials = make_trials(40)
    pruned = trials.assign(number=trials["number"] + 40, state="PRUNED", value=trials["params_gamma"] * 10)
    both = pd.concat([trials, pruned], ignore_index=True)
    assert parameter_importance(both, SPACE) == parameter_importance(trials, SPACE)


def test_the_same_trials_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_figures(make_trials(15), SPACE, tmp_path / name, objective="val_mae", direction="minimize")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_lower_is_better_where_the_study_minimises(tmp_path: Path) -> None:
    """The best line of the history falls, so the two directions differ."""
    for direction in ("maximize", "minimize"):
        (tmp_path / direction).mkdir()
        write_figures(make_trials(15), SPACE, tmp_path / direction, objective="mae", direction=direction)
    for name in (HISTORY, SLICE, PARALLEL):
        assert (tmp_path / "maximize" / name).read_bytes() != (tmp_path / "minimize" / name).read_bytes()


def test_optuna_stays_silent_and_keeps_its_verbosity(caplog: pytest.LogCaptureFixture) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    with caplog.at_level(logging.DEBUG, "optuna"):
        optuna.logging.enable_propagation()
        try:
            parameter_importance(make_trials(8), SPACE)
        finally:
            optuna.logging.disable_propagation()
    assert not caplog.records
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (0.1, 2.0, True, [0.1, 0.2, 0.5, 1, 2]),
        (1e-5, 1e-1, True, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        (0.5, 10.0, False, [2, 4, 6, 8, 10]),
        (0.3, 0.3, False, [0.3]),
    ],
)
def test_ticks_are_round_values(low: float, high: float, log: bool, ticks: list[float]) -> None:
    assert round_values(low, high, log=log) == pytest.approx(ticks)


def test_neither_pyplot_nor_optuna_is_imported_with_the_module() -> None:
    code = (
        "import sys, raregrade.tuning.figures as f; "
        "assert not {'matplotlib.pyplot', 'optuna', 'plotly'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
