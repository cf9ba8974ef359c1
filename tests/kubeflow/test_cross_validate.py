"""``raregrade pipeline run cross_validate`` with two losses and two folds."""

import pandas as pd
import pytest

from raregrade.data.manifest import PreparedDataset
from tests.kubeflow.local_pipelines import newest_run, pipeline_run, read, working_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    tiny["data"]["split"] = {"folds": 2}
    folder = working_folder(tmp_path_factory.mktemp("folds"), tiny)
    done = pipeline_run(folder, "cross_validate")
    assert done.returncode == 0, done.stdout + done.stderr
    return newest_run(folder, "cross_validate"), done.stdout


def test_each_loss_is_trained_on_each_fold(run):
    folder, _ = run
    cards = [read(path) for path in folder.glob("for-loop-*/train-model/model/model.json")]
    assert sorted((card["loss"]["name"], card["fold"]) for card in cards) == [
        ("cdw_ce", 0), ("cdw_ce", 1), ("ce", 0), ("ce", 1),
    ]  # fmt: skip


def test_the_comparison_is_over_every_image_outside_of_the_test_split(run):
    folder, _ = run
    made = folder / "compare-folds" / "comparison"
    dataset = PreparedDataset.open(folder / "prepare-dataset" / "dataset")
    outside = dataset.manifest.loc[dataset.manifest["fold"] >= 0, "image_id"]
    models = pd.read_csv(made / "comparison" / "per_seed.csv")
    assert sorted(models[["loss", "fold"]].itertuples(index=False, name=None)) == [
        ("cdw_ce", 0), ("cdw_ce", 1), ("ce", 0), ("ce", 1),
    ]  # fmt: skip
    comparison = read(made / "comparison" / "comparison.json")
    assert comparison["splits"]["val"]["images"] == len(outside)
    assert comparison["folds"] == 2


def test_it_ends_with_the_table_and_the_folds(run):
    _, stdout = run
    assert "val QWK" in stdout
    assert "val_qwk of each fold:" in stdout
    assert "report: " in stdout
    assert "notify-exit: done" in stdout
    assert "registered" not in stdout
