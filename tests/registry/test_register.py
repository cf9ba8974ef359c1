"""Registration in a real MLflow registry, of real model folders, on a real prepared dataset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raregrade.config import AlarmConfig, GateRule
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import DataError, ModelError
from raregrade.models.folder import load_model
from raregrade.registry import fetch_model, list_models, promote, register_winner
from raregrade.registry.package import encode_png
from raregrade.tracking import Tracking
from raregrade.tracking.connection import open_client

PASSES = [GateRule(metric="val_auroc", threshold=0.0)]
# The models of these tests have random weights, which is what alarms are for.
QUIET = AlarmConfig(refuse=False)
NAME = "phantom-severity"
Compare = Callable[..., Any]
MakeModel = Callable[..., Path]


def _register(contest: Any, data: PreparedDataset | None, tracking: Tracking, **settings: Any) -> Any:
    settings = {"gate": PASSES, "name": NAME} | settings
    return register_winner(
        comparison=contest.comparison,
        models=contest.models,
        data=None if data is None else data.root,
        tracking=tracking,
        **settings,
    )


def test_the_winner_is_registered_and_can_be_found_with_all_that_made_it(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    contest = compare(dataset, seeds=(1, 2))
    result = _register(contest, dataset, tracking)

    assert result.registered
    assert (result.version, result.loss, result.seed) == ("1", "cdw_ce", 2)
    written = json.loads(json.dumps(result.to_json()))
    assert (written["reasons"], written["remarks"]) == ([], list(result.remarks))
    assert result.remarks[0] == (
        "cdw_ce is taken: validation chose it, and the test split shows it to be better than ce"
    )
    assert "val_auroc" in result.remarks[1]
    (version,) = list_models(NAME, tracking)
    assert version.aliases == ("challenger",)
    tags = version.tags
    assert (tags["loss"], tags["seed"], tags["raregrade.git_commit"]) == ("cdw_ce", "2", "0123abc")
    assert tags["raregrade.dataset.content_hash"] == dataset.content_hash
    assert tags["raregrade.dataset.dvc_md5"] == "d41d8cd9.dir"
    assert float(tags["val_qwk"]) == pytest.approx(result.metrics["val_qwk"], abs=1e-5)
    assert version.metrics == result.metrics

    client = open_client(tracking.uri)
    run = client.get_run(client.get_model_version(NAME, "1").run_id)
    assert (run.info.run_name, run.info.status) == (f"register {NAME}", "FINISHED")
    assert run.data.tags["raregrade.registered"] == "true"
    assert run.data.metrics["val_qwk"] == pytest.approx(result.metrics["val_qwk"])
    assert run.data.params["train.backbone"] == "test_resnet"
    assert [o.model_id for o in run.outputs.model_outputs]
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert "registered as version 1" in parent.data.tags["mlflow.note.content"]


def test_nothing_is_written_but_the_store(dataset: PreparedDataset, compare: Compare, tracking: Tracking) -> None:
    before = list(sys.path)
    assert _register(compare(dataset), dataset, tracking).registered
    assert list(Path.cwd().iterdir()) == []
    assert sys.path == before


def test_a_model_fetched_by_alias_or_version_predicts_the_same(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking, tmp_path: Path
) -> None:
    contest = compare(dataset)
    _register(contest, dataset, tracking)
    images = dataset.images(dataset.rows("test"))
    winner = next(folder for folder in contest.models if "cdw_ce" in folder.parts)
    expected = load_model(winner).predict(images)
    for uri in (f"models:/{NAME}@challenger", f"models:/{NAME}/1"):
        folder = fetch_model(uri, tracking, tmp_path / uri.replace("/", "_"))
        np.testing.assert_array_equal(load_model(folder).predict(images), expected)


@pytest.mark.slow
def test_the_mlflow_model_loads_without_training_code_or_pickles(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking, tmp_path: Path
) -> None:
    contest = compare(dataset)
    _register(contest, dataset, tracking)
    rows = dataset.rows("val")[:8]
    images = dataset.images(rows)
    pd.DataFrame({"image": [encode_png(image) for image in images]}).to_parquet(tmp_path / "images.parquet")
    code = f"""
import sys, mlflow, pandas as pd
mlflow.set_tracking_uri({tracking.uri!r})
model = mlflow.pyfunc.load_model("models:/{NAME}@challenger")
answer = model.predict(pd.read_parquet({str(tmp_path / "images.parquet")!r}))
answer.to_parquet({str(tmp_path / "answer.parquet")!r})
import raregrade
assert "code" in raregrade.__file__.split("/")[-3], raregrade.__file__
loaded = [m for m in sys.modules if m.startswith(("raregrade.training", "raregrade.steps", "raregrade.losses."))]
assert set(loaded) <= {{"raregrade.losses.definition", "raregrade.losses.registry"}}, loaded  # names, no formulas
"""
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    answer = pd.read_parquet(tmp_path / "answer.parquet")
    winner = load_model(next(folder for folder in contest.models if "cdw_ce" in folder.parts))
    expected = winner.probabilities(winner.predict(images))
    assert list(answer.columns) == ["grade", *dataset.label_space.prob_columns]
    np.testing.assert_allclose(answer[dataset.label_space.prob_columns], expected, atol=1e-6)
    assert list(answer["grade"]) == [dataset.label_space.classes[i] for i in expected.argmax(axis=1)]


def test_the_signature_and_the_input_example_are_kept(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking, tmp_path: Path
) -> None:
    from mlflow.models import Model

    from raregrade.registry.catalog import download

    _register(compare(dataset), dataset, tracking)
    path = download(open_client(tracking.uri), list_models(NAME, tracking)[0], "", tmp_path / "mlflow-model")
    model = Model.load(str(path))
    assert [c.name for c in model.signature.inputs] == ["image"]
    assert [c.name for c in model.signature.outputs] == ["grade", *dataset.label_space.prob_columns]
    example = model.load_input_example(str(path))
    first = dataset.images(dataset.rows("val")[:1])[0]
    assert example["image"][0] == encode_png(first)
    assert not list(path.rglob("*.pkl")) + list(path.rglob("__pycache__"))
    assert any(line.startswith("torch==") for line in (path / "requirements.txt").read_text().splitlines())


def test_the_same_weights_are_registered_once(dataset: PreparedDataset, compare: Compare, tracking: Tracking) -> None:
    contest = compare(dataset)
    _register(contest, dataset, tracking)
    again = _register(contest, dataset, tracking)
    assert (again.registered, again.version) == (True, "1")
    assert "this model is registered already, as version 1" in again.remarks
    assert len(list_models(NAME, tracking)) == 1


def test_a_refusal_is_a_result_and_registers_nothing(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    gate = [GateRule(metric="val_auroc", threshold=1.0)]
    result = _register(compare(dataset), dataset, tracking, gate=gate)
    assert (result.registered, result.version) == (False, None)
    assert "is below the floor of 1" in result.reasons[0]
    assert list_models(None, tracking) == []
    client = open_client(tracking.uri)
    experiment = client.get_experiment_by_name("grades").experiment_id
    (run,) = client.search_runs([experiment], "tags.`raregrade.step` = 'register'")
    assert (run.info.status, run.data.tags["raregrade.outcome"]) == ("FINISHED", "refused by the gate")


def test_without_a_champion_the_winner_must_beat_the_mean_of_the_baseline(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    def means(baseline: float, winner: float) -> Callable[[dict[str, Any]], None]:
        def edit(content: dict[str, Any]) -> None:
            content["losses"]["ce"]["metrics"]["val_auroc"]["mean"] = baseline
            content["losses"]["cdw_ce"]["metrics"]["val_auroc"]["mean"] = winner

        return edit

    gate = [GateRule(metric="val_auroc", min_absolute_change=0.02)]
    refused = _register(compare(dataset, edit=means(0.60, 0.61)), dataset, tracking, gate=gate)
    assert refused.reasons == (
        "val_auroc 0.6100 against 0.6000 of the baseline ce: better by +0.0100, less than the +0.02 asked for",
    )
    assert _register(compare(dataset, edit=means(0.60, 0.63)), dataset, tracking, gate=gate).registered


def test_the_baseline_itself_may_win(dataset: PreparedDataset, compare: Compare, tracking: Tracking) -> None:
    gate = [GateRule(metric="val_auroc", threshold=0.0, min_absolute_change=0.1)]
    result = _register(compare(dataset, winner="ce"), dataset, tracking, gate=gate)
    assert (result.registered, result.loss) == (True, "ce")


def test_a_challenger_must_beat_the_champion(dataset: PreparedDataset, compare: Compare, tracking: Tracking) -> None:
    _register(compare(dataset, winner="ce"), dataset, tracking)
    promote(NAME, "1", tracking=tracking)
    contest = compare(dataset, winner="cdw_ce")
    (champion,) = list_models(NAME, tracking)
    for least, registered in ((1.0, False), (-1.0, True)):
        gate = [GateRule(metric="val_qwk", min_absolute_change=least)]
        result = _register(contest, dataset, tracking, gate=gate, alarms=QUIET)
        assert result.registered is registered
        sentence = result.remarks[-1] if registered else result.reasons[0]
        assert f"{champion.metrics['val_qwk']:.4f} of the champion (version 1)" in sentence
    assert {v.version: v.aliases for v in list_models(NAME, tracking)} == {"1": ("champion",), "2": ("challenger",)}


def test_the_champion_registered_again_stays_champion(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    contest = compare(dataset)
    _register(contest, dataset, tracking)
    promote(NAME, "1", tracking=tracking)
    open_client(tracking.uri).delete_registered_model_alias(NAME, "challenger")
    again = _register(contest, dataset, tracking, gate=[GateRule(metric="val_qwk", min_absolute_change=0.5)])
    assert (again.registered, again.version) == (True, "1")
    assert list_models(NAME, tracking)[0].aliases == ("champion",)


def test_on_new_data_the_champion_is_measured_anew(
    dataset: PreparedDataset, other_dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    from raregrade.evaluation.metrics import compute_metrics

    first = compare(dataset, winner="ce")
    _register(first, dataset, tracking)
    promote(NAME, "1", tracking=tracking)
    gate = [GateRule(metric="val_auroc", min_absolute_change=-1.0)]
    result = _register(compare(other_dataset), other_dataset, tracking, gate=gate, alarms=QUIET)

    champion = load_model(next(folder for folder in first.models if "ce" in folder.parts))
    rows = other_dataset.rows("val")
    probabilities = champion.probabilities(champion.predict(other_dataset.images(rows)))
    expected = compute_metrics(other_dataset.targets(rows), probabilities, other_dataset.label_space)["auroc"]
    assert f"against {expected:.4f} of the champion (version 1)" in result.remarks[-1]


def test_a_champion_with_other_labels_cannot_be_compared_with(
    dataset: PreparedDataset, findings_dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    _register(compare(dataset), dataset, tracking)
    promote(NAME, "1", tracking=tracking)
    result = _register(compare(findings_dataset), findings_dataset, tracking)
    assert not result.registered
    assert "cannot be compared" in result.reasons[0]
    assert "Register under another name" in result.reasons[0]


def test_several_findings_an_image_are_registered_too(
    findings_dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    assert _register(compare(findings_dataset), findings_dataset, tracking).registered


def test_without_the_dataset_a_model_is_still_checked_and_registered(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking
) -> None:
    assert _register(compare(dataset), None, tracking).registered


def test_without_tracking_the_gate_is_applied_and_nothing_registered(
    dataset: PreparedDataset, compare: Compare
) -> None:
    result = _register(compare(dataset), dataset, Tracking("none", "grades"))
    assert not result.registered
    assert "tracking.uri is none" in result.reasons[0]
    assert "reaches the floor" in result.remarks[1]
    assert list(Path.cwd().iterdir()) == []


def test_a_model_that_predicts_otherwise_after_loading_leaves_no_version(
    dataset: PreparedDataset, compare: Compare, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the store are exchanged between writing and reading them, as a broken disk would."""
    import raregrade.registry.register as module

    contest = compare(dataset)
    check = module.check_loads_back

    def spoil(client: Any, version: Any, folder: Path, decision: Any, images: Any) -> None:
        other = next(f for f in contest.models if "cdw_ce" not in f.parts)
        store = Path(tracking.uri.removeprefix("sqlite:///")).parent
        (stored,) = store.rglob("weights.safetensors")
        stored.write_bytes((other / "weights.safetensors").read_bytes())
        check(client, version, folder, decision, images)

    monkeypatch.setattr(module, "check_loads_back", spoil)
    with pytest.raises(ModelError, match="probabilities differ"):
        _register(contest, dataset, tracking)
    assert list_models(NAME, tracking) == []


def test_files_that_do_not_belong_together_are_refused(
    *,
    dataset: PreparedDataset,
    other_dataset: PreparedDataset,
    compare: Compare,
    make_model: MakeModel,
    tracking: Tracking,
) -> None:
    contest = compare(dataset)
    with pytest.raises(DataError, match="was trained on dataset"):
        _register(contest, other_dataset, tracking)
    contest.models[:] = [folder for folder in contest.models if "cdw_ce" not in folder.parts]
    with pytest.raises(ModelError, match="recommends cdw_ce seed 1, but the models given are: ce seed 1"):
        _register(contest, dataset, tracking)
    contest.models.append(make_model(other_dataset, "cdw_ce", 1))
    with pytest.raises(DataError, match="Evaluate and compare the models again"):
        _register(contest, dataset, tracking)
    (contest.comparison / "comparison.json").write_text('{"schema": 2}')
    with pytest.raises(DataError, match="'recommended'"):
        _register(contest, dataset, tracking)
    (contest.comparison / "comparison.json").unlink()
    with pytest.raises(DataError, match="raregrade compare"):
        _register(contest, dataset, tracking)
    assert list_models(None, tracking) == []
