"""The benchmark of tuning replays raregrade's own study on recorded curves, and counts what it spends."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))  # behind the root, whose folder `pipelines` is meant

import tuning  # noqa: E402
import tuning_overhead  # noqa: E402
import tuning_record  # noqa: E402
import tuning_replay  # noqa: E402
from tuning_record import TASKS  # noqa: E402
from tuning_replay import Curves, make_product_plan, read_curves, replay  # noqa: E402

EPOCHS = 4


def write_table(path: Path, finals: dict[float, float]) -> Path:
    """Curves of CDW-CE that rise to ``finals`` by power, a little higher with each seed; and of LMF, all alike."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, tuning_record.COLUMNS)
        writer.writeheader()
        for seed in (1, 2, 3):
            for epoch in range(1, EPOCHS + 1):
                row: dict[str, Any] = {"seed": seed, "epoch": epoch, "train_loss": 1.0}
                for power, final in finals.items():
                    value = final * epoch / EPOCHS + 0.01 * seed
                    writer.writerow(row | {"loss": "cdw_ce", "power": power, "val_qwk": value})
                for alpha in (0.1, 2.0):
                    value = 0.5 * epoch / EPOCHS + 0.01 * seed
                    writer.writerow(row | {"loss": "lmf", "alpha": alpha, "beta": 1.0, "val_macro_f1": value})
    return path


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_product_plan(TASKS["cdw_ce"], tmp_path_factory.mktemp("phantom"), EPOCHS, trials=8)


def test_a_good_first_setting_costs_one_trial(plan: Any, tmp_path: Path) -> None:
    curves = read_curves(write_table(tmp_path / "t.csv", {2.0: 0.8, 5.0: 0.4, 9.0: 0.3}), TASKS["cdw_ce"])
    assert plan.search.starts[0].values == {"power": 2.0}  # of params.yaml
    run = replay(plan, curves, 1)
    assert run.epochs == len(plan.search.units) * EPOCHS
    assert run.kept


def test_a_good_setting_that_nothing_starts_with_is_searched_for(plan: Any, tmp_path: Path) -> None:
    curves = read_curves(write_table(tmp_path / "t.csv", {2.0: 0.3, 5.0: 0.4, 9.0: 0.8}), TASKS["cdw_ce"])
    first = len(plan.search.units) * EPOCHS
    runs = [replay(plan, curves, number) for number in range(1, 7)]
    found = [run for run in runs if run.kept]
    assert found
    assert all(first < run.epochs <= run.total <= plan.search.trials * first for run in found)
    assert all(math.isinf(run.epochs) for run in runs if run.total == first)


def test_pruning_saves_epochs(plan: Any, tmp_path: Path) -> None:
    curves = read_curves(write_table(tmp_path / "t.csv", {2.0: 0.8, 5.0: 0.4, 9.0: 0.3}), TASKS["cdw_ce"])
    unpruned = replace(plan, search=replace(plan.search, config=None))
    everything = plan.search.trials * len(plan.search.units) * EPOCHS
    assert replay(unpruned, curves, 1).total == everything
    assert replay(plan, curves, 1).total < everything


def test_the_same_number_replays_the_same_study(plan: Any, tmp_path: Path) -> None:
    curves = read_curves(write_table(tmp_path / "t.csv", {1.0: 0.5, 4.0: 0.6, 9.0: 0.55}), TASKS["cdw_ce"])
    assert replay(plan, curves, 3) == replay(plan, curves, 3)


def test_the_nearest_setting_is_nearest_on_the_scale_that_is_searched() -> None:
    flat = {1: np.zeros(2)}
    by_log = Curves(("alpha",), (True,), {(0.1,): flat, (1.0,): flat})
    assert by_log.nearest({"alpha": 0.3}) == (0.1,)
    assert by_log.nearest({"alpha": 0.33, "beta": 7.0}) == (1.0,)
    assert Curves(("alpha",), (False,), by_log.values).nearest({"alpha": 0.33}) == (0.1,)


def test_good_is_within_one_standard_error_of_the_best() -> None:
    def curves(*finals: float) -> dict[int, Any]:
        return {seed: np.array([0.0, final, final - 0.1]) for seed, final in enumerate(finals)}

    # The best has mean 0.7 and variance 0.04 over its seeds: 0.1 is the error over four of them. The other has variance
    # 0, so the pooled one is 0.02, and 0.1 the error over two.
    table = Curves(("power",), (False,), {(1.0,): curves(0.5, 0.7, 0.9), (2.0,): curves(0.61, 0.61, 0.61)})
    assert table.good(repeats=4) == {(1.0,), (2.0,)}
    assert table.good(repeats=5) == {(1.0,)}
    assert table.good(repeats=2, pooled=True) == {(1.0,), (2.0,)}
    assert table.good(repeats=3, pooled=True) == {(1.0,)}


def test_seeds_without_every_setting_are_left_out(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", {2.0: 0.8, 5.0: 0.4})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("cdw_ce,5.0,,,3,")))
    assert read_curves(path, TASKS["cdw_ce"]).seeds == [1, 2]
    assert read_curves(path, TASKS["lmf"]).seeds == [1, 2, 3]


def test_a_broken_bar_is_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "t.csv", {2.0: 0.8, 9.0: 0.3})
    monkeypatch.setattr(
        tuning_replay,
        "make_product_plan",
        lambda task, folder, epochs: make_product_plan(task, folder, epochs, trials=3),
    )
    # The first trial is good, and the grid has two settings: half of its epochs.
    arguments = ["--table", str(table), "--studies", "1"]
    assert tuning.main(arguments) == 0
    assert "| cdw_ce | study | 0.50 (≤ 0.35) |" in capsys.readouterr().out
    assert tuning.main([*arguments, "--check"]) == 1
    monkeypatch.setattr(tuning_replay, "BAR", 0.5)
    assert tuning.main([*arguments, "--check"]) == 0


def test_the_committed_table_is_complete() -> None:
    for name, task in TASKS.items():
        curves = read_curves(tuning.TABLE, task)
        assert sorted(curves.values) == sorted(tuple(setting.values()) for setting in task.grid), name
        assert curves.seeds == list(task.seeds)
        assert curves.epochs == tuning_record.EPOCHS
        assert all(len(c) == curves.epochs for seeds in curves.values.values() for c in seeds.values())


@pytest.mark.slow
def test_recording_goes_on_where_it_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TASKS["cdw_ce"]
    small = replace(task, grid=task.grid[:2], seeds=(1, 2), phantom={**task.phantom, "patients": 40})
    monkeypatch.setitem(TASKS, "cdw_ce", small)
    monkeypatch.setitem(tuning_record._TRAIN, "epochs", 2)
    table = tmp_path / "t.csv"
    assert tuning.main(["record", "--table", str(table), "--loss", "cdw_ce"]) == 0
    whole = table.read_text()
    assert len(whole.splitlines()) == 1 + 2 * 2 * 2
    capsys.readouterr()
    lines = whole.splitlines(keepends=True)
    table.write_text("".join(lines[:-2]))
    tuning_record.record(table, ("cdw_ce",))
    assert capsys.readouterr().out.startswith("1/1 cdw_ce power 2, seed 2: best qwk ")
    assert table.read_text() == whole


@pytest.mark.slow
def test_overhead_is_measured_by_real_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning_overhead, "BARS", {("journal", 2): 60_000})
    assert tuning.main(["overhead", "--trials", "6", "--check"]) == 0
    assert "| journal | 2 | " in capsys.readouterr().out
    monkeypatch.setattr(tuning_overhead, "BARS", {("journal", 1): 0})
    assert tuning.main(["overhead", "--trials", "1", "--check"]) == 1
