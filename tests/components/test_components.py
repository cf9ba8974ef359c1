"""The components called as functions, one after the other, on a tiny phantom: what their artifacts hold.

First as ``compare_losses`` calls them, with a gate that refuses; then as ``retrain_and_promote`` does, with one that
lets everything pass. As tasks of processes of their own they run in tests/kubeflow.
"""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kfp import dsl

from raregrade.config import GateRule, params_from_dict, section
from raregrade.data.manifest import PreparedDataset
from raregrade.evaluation.predictions import make_predictions
from raregrade.evaluation.report import Judged, write_report
from raregrade.kubeflow import task_io
from raregrade.kubeflow.compile import arguments_of
from raregrade.kubeflow.components.collect_study.component import collect_study
from raregrade.kubeflow.components.compare_folds.component import compare_folds
from raregrade.kubeflow.components.compare_models.component import compare_models
from raregrade.kubeflow.components.evaluate_champion.component import evaluate_champion
from raregrade.kubeflow.components.evaluate_model.component import evaluate_model
from raregrade.kubeflow.components.fetch_data.component import fetch_data
from raregrade.kubeflow.components.notify_exit.component import notify_exit
from raregrade.kubeflow.components.prepare_dataset.component import prepare_dataset
from raregrade.kubeflow.components.promote_model.component import promote_model
from raregrade.kubeflow.components.read_champion.component import read_champion
from raregrade.kubeflow.components.register_model.component import register_model
from raregrade.kubeflow.components.train_model.component import train_model
from raregrade.kubeflow.components.tune_worker.component import tune_worker
from raregrade.steps.phantom import phantom
from raregrade.tracking import Tracking, start_step
from raregrade.tracking.connection import open_client

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The artifacts of all components, with the images in a store outside the Dataset artifact."""
    root = tmp_path_factory.mktemp("chain")
    params = params_from_dict(
        {
            "seed": 35,
            "phantom": {"patients": 40, "image_size": 32},
            "data": {
                "source": "phantom",
                "path": "nowhere",
                "task": "ordinal",
                "classes": ["none", "mild", "moderate", "severe"],
                "image_size": 32,
            },
            "train": {"backbone": "resnet10t", "epochs": 1, "precision": "float32", "threads": 1},
            "losses": {"ce": {}},
            "compare": {"losses": ["ce"], "seeds": [1], "baseline": "ce-tuned"},
            "tune": {
                "losses": ["ce"],
                "trials": 1,
                "repeats": 1,
                "confirm": 2,
                "min_epochs": 1,
                "storage": str(root / "study.log"),
            },
            "gate": [{"metric": "val_accuracy", "threshold": 1.0}],
            "alarms": {"refuse": False},  # after one epoch a model misses grades
            "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "experiment": "components"},
        }
    )
    phantom(section(params, "phantom"), root / "raw")
    arguments = arguments_of(
        "compare_losses", params, raw_data=str(root / "raw"), data_revision="r1", store=str(root / "store")
    )
    log = {"tracking_uri": arguments["tracking_uri"], "experiment": arguments["experiment"]}

    def artifact(kind, name):
        return kind(name=name, uri=str(root / "artifacts" / name))

    (root / "artifacts").mkdir()
    made = SimpleNamespace(
        root=root,
        params=params,
        log=log,
        artifact=artifact,
        raw=artifact(dsl.Dataset, "raw"),
        dataset=artifact(dsl.Dataset, "dataset"),
        model=artifact(dsl.Model, "model"),
        report=artifact(dsl.Artifact, "report"),
        page=artifact(dsl.HTML, "page"),
        metrics=artifact(dsl.Metrics, "metrics"),
        confusion=artifact(dsl.ClassificationMetrics, "confusion"),
        comparison=artifact(dsl.Artifact, "comparison"),
        comparison_page=artifact(dsl.HTML, "comparison_page"),
        comparison_metrics=artifact(dsl.Metrics, "comparison_metrics"),
        registration=artifact(dsl.Artifact, "registration"),
    )
    path, revision = fetch_data.python_func(
        path=arguments["raw_data"], revision=arguments["data_revision"], raw=made.raw, **log
    )
    prepare_dataset.python_func(
        section=arguments["prepare"],
        dataset=made.dataset,
        raw_data=path,
        data_revision=revision,
        store=arguments["store"],
        **log,
    )
    train_model.python_func(run=arguments["runs"][0], dataset=made.dataset, model=made.model, **log)
    evaluate_model.python_func(
        section=arguments["evaluate"],
        model=made.model,
        dataset=made.dataset,
        report=made.report,
        page=made.page,
        metrics=made.metrics,
        confusion=made.confusion,
        **log,
    )
    compare_models.python_func(
        section=arguments["compare"],
        reports=[made.report],
        comparison=made.comparison,
        page=made.comparison_page,
        metrics=made.comparison_metrics,
        **log,
    )
    register_model.python_func(
        section=arguments["register"],
        comparison=made.comparison,
        models=[made.model],
        dataset=made.dataset,
        registration=made.registration,
        **log,
    )
    return made


@pytest.fixture(scope="module")
def after(chain):
    """What a retraining makes of it, once the model is champion."""
    root, log, artifact = chain.root, chain.log, chain.artifact
    params = chain.params.model_copy(update={"gate": [GateRule(metric="val_qwk", threshold=-1.0)]})
    arguments = arguments_of("retrain_and_promote", params, raw_data="x", store=str(root / "store"))
    made = SimpleNamespace(
        refused=artifact(dsl.Artifact, "refused"),
        registration=artifact(dsl.Artifact, "registration2"),
        promotion=artifact(dsl.Artifact, "promotion"),
        champion=artifact(dsl.Model, "champion"),
        report=artifact(dsl.Artifact, "champion_report"),
        page=artifact(dsl.HTML, "champion_page"),
        metrics=artifact(dsl.Metrics, "champion_metrics"),
        confusion=artifact(dsl.ClassificationMetrics, "champion_confusion"),
        comparison=artifact(dsl.Artifact, "comparison2"),
        comparison_page=artifact(dsl.HTML, "comparison_page2"),
        comparison_metrics=artifact(dsl.Metrics, "comparison_metrics2"),
    )
    given = {"section": arguments["register"], "dataset": chain.dataset, **log}
    promote_model.python_func(registration=chain.registration, promotion=made.refused, **given)
    register_model.python_func(
        comparison=chain.comparison, models=[chain.model], registration=made.registration, **given
    )
    promote_model.python_func(registration=made.registration, promotion=made.promotion, **given)
    made.runs = read_champion.python_func(
        **{key: arguments[key] for key in ("default", "compare", "register", "store")},
        champion_model=made.champion,
        comparison=str(root / "compare.json"),
        previous=str(root / "previous.txt"),
        **log,
    )
    evaluate_champion.python_func(
        section=arguments["evaluate"],
        champion_model=made.champion,
        dataset=chain.dataset,
        report=made.report,
        page=made.page,
        metrics=made.metrics,
        confusion=made.confusion,
        **log,
    )
    made.section = json.loads((root / "compare.json").read_text())
    compare_models.python_func(
        section=made.section,
        reports=[chain.report],
        reference=made.report,
        comparison=made.comparison,
        page=made.comparison_page,
        metrics=made.comparison_metrics,
        **log,
    )
    return made


def test_raw_data_are_described_and_not_copied(chain):
    assert [file.name for file in Path(chain.raw.path).iterdir()] == ["fetched.json"]
    assert chain.raw.metadata["path"] == str(chain.root / "raw")
    assert chain.raw.metadata["revision"] == "r1"
    assert chain.raw.metadata["files"] == sum(file.is_file() for file in (chain.root / "raw").rglob("*"))


def test_a_model_that_was_refused_is_not_promoted(after):
    assert (after.refused.metadata["promoted"], after.refused.metadata["moved"]) == (False, False)
    assert "nothing was registered" in after.refused.metadata["reasons"][0]


def test_a_registered_model_becomes_champion(after):
    assert after.registration.metadata["version"] == "1"
    assert after.promotion.metadata["moved"] is True
    assert (after.promotion.metadata["name"], after.promotion.metadata["version"]) == ("raregrade-demo", "1")


def test_the_recipe_is_that_of_the_champion_with_the_dataset_whose_splits_stay(chain, after):
    trained = arguments_of("compare_losses", chain.params, raw_data="x")["runs"]
    assert after.runs == trained
    assert after.champion.metadata == {"loss": "ce", "version": "1"}
    assert after.section["compare"]["losses"] == ["ce"]
    previous = Path((chain.root / "previous.txt").read_text())
    assert PreparedDataset.open(previous).content_hash == chain.dataset.metadata["content_hash"]


def test_the_champion_is_judged_as_itself_and_stands_beside_its_successor(chain, after):
    assert after.metrics.metadata == chain.metrics.metadata  # the same weights on the same images
    assert after.report.metadata == {"loss": "champion", "seed": 1}
    result = json.loads((Path(after.comparison.path) / "comparison.json").read_text())
    assert list(result["losses"]) == ["ce", "champion"]
    assert result["losses"]["champion"]["candidate"] is False
    assert result["winner"] == {"loss": "ce", "seed": 1, "decision": {"rule": "argmax"}}


def test_without_a_champion_its_report_is_empty_and_its_page_says_so(chain, tmp_path):
    report, page = (kind(name="x", uri=str(tmp_path / kind.__name__)) for kind in (dsl.Artifact, dsl.HTML))
    metrics, confusion = (kind(name="x", uri=str(tmp_path / kind.__name__)) for kind in (dsl.Metrics, dsl.Artifact))
    (tmp_path / "none").mkdir()
    evaluate_champion.python_func(
        section=arguments_of("compare_losses", chain.params, raw_data="x")["evaluate"],
        champion_model=dsl.Model(uri=str(tmp_path / "none")),
        dataset=chain.dataset,
        report=report,
        page=page,
        metrics=metrics,
        confusion=confusion,
    )
    assert "no champion" in Path(page.path).read_text()
    assert list(Path(report.path).iterdir()) == []
    assert task_io.report_folders([chain.report], report) == [Path(chain.report.path)]


def test_an_exit_handler_reports_what_kubeflow_tells_it(chain, monkeypatch):
    monkeypatch.setenv("RAREGRADE_GROUP", "the-run")
    with start_step(Tracking(chain.log["tracking_uri"], chain.log["experiment"], group="the-run"), "x", name="x"):
        pass
    status = dsl.PipelineTaskFinalStatus(
        state="FAILED",
        pipeline_job_resource_name="job",
        pipeline_task_name="pipeline",
        error_code=9,
        error_message="out of memory",
    )
    notify_exit.python_func(pipeline="compare_losses", status=status, **chain.log)
    client = open_client(chain.log["tracking_uri"])
    experiment = client.get_experiment_by_name(chain.log["experiment"])
    (parent,) = client.search_runs(
        [experiment.experiment_id], "tags.`raregrade.group` = 'the-run' and tags.`raregrade.step` = 'pipeline'"
    )
    assert parent.info.status == "FAILED"
    assert parent.data.tags["raregrade.pipeline.error"] == "out of memory"


def test_a_study_is_worked_on_and_collected(chain, tmp_path):
    arguments = arguments_of("tune_loss", chain.params, raw_data="x")
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))
    given = {"section": arguments["tune"], "storage": arguments["storage"], "dataset": chain.dataset}
    tune_worker.python_func(worker=arguments["workers"][0], metrics=metrics, **given)
    assert metrics.metadata["number"] == 0
    assert metrics.metadata["trials"] >= 1
    study, page, best = (
        kind(name=name, uri=str(tmp_path / name))
        for kind, name in ((dsl.Artifact, "study"), (dsl.HTML, "page"), (dsl.Metrics, "best"))
    )
    collect_study.python_func(workers=[metrics], study=study, page=page, metrics=best, **given)
    assert study.metadata["loss"] == "ce"
    assert study.metadata["chosen"] in ("tuned", "default")
    assert study.metadata["verdict"] in Path(page.path).read_text()
    assert set(best.metadata) == {"best_val_qwk", "worker_0/trials"}
    run = arguments["runs"][-1]
    model = dsl.Model(name="model", uri=str(tmp_path / "model"))
    train_model.python_func(run=run, dataset=chain.dataset, model=model, tuned=study)
    assert model.metadata["loss"] == "ce-tuned"


def test_folds_are_compared_with_mean_and_spread(chain, tmp_path):
    dataset = PreparedDataset.open(Path(chain.dataset.path))
    reports = []
    for fold in sorted(set(dataset.manifest["fold"]) - {-1}):
        part = PreparedDataset.open(Path(chain.dataset.path), fold=int(fold))
        rows = np.concatenate([part.rows("val"), part.rows("test")])
        table = part.manifest.iloc[rows]
        probs = np.random.default_rng(int(fold)).dirichlet(np.ones(4), len(rows))
        ids = {key: table[key].to_numpy() for key in ("image_id", "group_id", "split")}
        predictions = make_predictions(part.label_space, **ids, targets=part.targets(rows), probs=probs)
        out = tmp_path / "reports" / str(fold)
        write_report(predictions, out, Judged("ce", {"loss": {"name": "ce", "kind": "ce"}, "seed": 1}))
        reports.append(dsl.Artifact(uri=str(out)))
    comparison, page, metrics = (
        kind(name=name, uri=str(tmp_path / name))
        for kind, name in ((dsl.Artifact, "comparison"), (dsl.HTML, "page"), (dsl.Metrics, "metrics"))
    )
    section = arguments_of("cross_validate", chain.params, raw_data="x")["compare"]
    compare_folds.python_func(
        section=section, reports=reports, dataset=chain.dataset, comparison=comparison, page=page, metrics=metrics
    )
    assert comparison.metadata["winner"]["loss"] == comparison.metadata["recommended"]["loss"] == "ce"
    found = json.loads((Path(comparison.path) / "folds.json").read_text())["ce"]["1"]["val_qwk"]
    assert metrics.metadata["ce/val_qwk/seed_1/mean"] == found["mean"]
    assert len(found["per_fold"]) == len(reports)
    assert "<html" in Path(page.path).read_text()


def test_the_dataset_holds_manifest_and_description_and_the_images_lie_in_the_store(chain):
    assert sorted(p.name for p in Path(chain.dataset.path).iterdir()) == ["dataset.json", "manifest.parquet"]
    metadata = chain.dataset.metadata
    assert list((chain.root / "store" / metadata["content_hash"]).rglob("*.npy"))
    assert metadata["num_images"] == sum(metadata["counts"].values())
    assert metadata["label_space"]["classes"] == ["none", "mild", "moderate", "severe"]
    assert metadata["revision"] == "r1"


def test_the_model_says_loss_seed_and_the_metric_that_chose_its_epoch(chain):
    metadata = chain.model.metadata
    assert (metadata["loss"], metadata["seed"], metadata["framework"]) == ("ce", 1, "pytorch")
    assert metadata["selection"]["metric"] == "qwk"
    assert metadata["dataset"]["content_hash"] == chain.dataset.metadata["content_hash"]
    assert (Path(chain.model.path) / "weights.safetensors").is_file()


def test_the_metrics_are_those_of_the_report(chain):
    written = json.loads((Path(chain.report.path) / "metrics.json").read_text())
    assert chain.metrics.metadata == {k: v for k, v in written.items() if v is not None and math.isfinite(v)}
    assert {"val_qwk", "test_qwk"} <= set(chain.metrics.metadata)


def test_the_confusion_matrix_counts_every_image_of_the_test_split(chain):
    matrix = chain.confusion.metadata["confusionMatrix"]
    assert [c["displayName"] for c in matrix["annotationSpecs"]] == ["none", "mild", "moderate", "severe"]
    assert sum(sum(row["row"]) for row in matrix["rows"]) == chain.dataset.metadata["counts"]["test"]


def test_the_pages_need_nothing_beside_them(chain):
    """The UI shows one file: pictures must be in it, and nothing may be fetched."""
    for page in (chain.page, chain.comparison_page):
        text = Path(page.path).read_text()
        assert "<html" in text
        assert 'src="figures' not in text
        assert 'src="http' not in text


def test_the_comparison_says_who_won(chain):
    model = {"loss": "ce", "seed": 1, "decision": {"rule": "argmax"}}
    assert chain.comparison.metadata == {"winner": model, "recommended": model, "baseline": "ce"}
    assert chain.comparison_metrics.metadata == {"ce/val_qwk": chain.metrics.metadata["val_qwk"]}


def test_a_refusal_of_the_gate_is_a_result(chain):
    assert chain.registration.metadata["registered"] is False
    assert "val_accuracy" in " ".join(chain.registration.metadata["reasons"])
    written = json.loads((Path(chain.registration.path) / "registered.json").read_text())
    assert written["registered"] is False


def test_every_description_can_be_handed_to_kubeflow(chain, after):
    for thing in [*vars(chain).values(), *vars(after).values()]:
        if isinstance(thing, dsl.Artifact):
            json.dumps(thing.metadata, allow_nan=False)
