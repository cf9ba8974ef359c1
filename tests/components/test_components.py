"""The five components called as functions, one after the other, on a tiny phantom: what their artifacts hold."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp import dsl

from components.compare_models.component import compare_models
from components.evaluate_model.component import evaluate_model
from components.prepare_dataset.component import prepare_dataset
from components.register_model.component import register_model
from components.train_model.component import train_model
from pipelines.arguments import pipeline_arguments
from raregrade.config import params_from_dict, section
from raregrade.steps.phantom import phantom

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
            "compare": {"losses": ["ce"], "seeds": [1], "baseline": "ce", "resamples": 100},
            "gate": [{"metric": "val_accuracy", "threshold": 1.0}],
            "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "experiment": "components"},
        }
    )
    phantom(section(params, "phantom"), root / "raw")
    arguments = pipeline_arguments(params, raw_data=str(root / "raw"), data_revision="r1", store=str(root / "store"))
    log = {"tracking_uri": arguments["tracking_uri"], "experiment": arguments["experiment"]}

    def artifact(kind, name):
        return kind(name=name, uri=str(root / "artifacts" / name))

    (root / "artifacts").mkdir()
    made = SimpleNamespace(
        root=root,
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
    prepare_dataset.python_func(
        section=arguments["prepare"],
        dataset=made.dataset,
        **{key: arguments[key] for key in ("raw_data", "data_revision", "store")},
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
    assert chain.comparison.metadata == {"winner": {"loss": "ce", "seed": 1}, "baseline": "ce"}
    assert chain.comparison_metrics.metadata == {"ce/val_qwk": chain.metrics.metadata["val_qwk"]}


def test_a_refusal_of_the_gate_is_a_result(chain):
    assert chain.registration.metadata["registered"] is False
    assert "val_accuracy" in " ".join(chain.registration.metadata["reasons"])
    written = json.loads((Path(chain.registration.path) / "registered.json").read_text())
    assert written["registered"] is False


def test_every_description_can_be_handed_to_kubeflow(chain):
    for name, thing in vars(chain).items():
        if name != "root":
            json.dumps(thing.metadata, allow_nan=False)
