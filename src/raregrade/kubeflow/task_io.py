"""What the body of a component needs beside its step: sections in, descriptions of artifacts out.

Artifacts are taken as they are (``path``, ``metadata``, ``log_…``). kfp is not imported: a task starts faster.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol, TypeVar

from raregrade.config import PrepareSection
from raregrade.config.tuned import BEST_FILE, read_best
from raregrade.schema import ConfigModel
from raregrade.steps.champion import Recipe
from raregrade.steps.notify import Outcome
from raregrade.tracking import Tracking

# Set on a cluster from the pod's label, on one machine by the runner: the id of the pipeline run.
GROUP_VARIABLE = "RAREGRADE_GROUP"
# A folder that outlives the task, where there is one: an interrupted training continues from it.
CHECKPOINTS_VARIABLE = "RAREGRADE_CHECKPOINTS"

Section = TypeVar("Section", bound=ConfigModel)


class Artifact(Protocol):
    """The part of ``kfp.dsl.Artifact`` that is used here."""

    metadata: dict[str, Any]

    @property
    def path(self) -> str: ...


class Metrics(Artifact, Protocol):
    """The part of ``kfp.dsl.Metrics`` that is used here."""

    def log_metric(self, metric: str, value: float) -> None: ...


class ClassificationMetrics(Artifact, Protocol):
    """The part of ``kfp.dsl.ClassificationMetrics`` that is used here."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None: ...


class FinalStatus(Protocol):
    """The part of ``kfp.dsl.PipelineTaskFinalStatus`` that is used here."""

    state: str | None
    pipeline_job_resource_name: str
    error_message: str | None


def section_to_argument(section: ConfigModel) -> dict[str, Any]:
    """A section as JSON values that pass through Kubeflow unchanged: no nulls, which kfp refuses.

    Raises:
        ValueError: a null that is not the default of its key, which ``section_from_argument`` could not restore.
    """
    value = section.model_dump(mode="json", by_alias=True, exclude_none=True)
    if section_from_argument(type(section), value) != section:
        raise ValueError(f"{type(section).__name__} has a null that is not its key's default: {section!r}")
    return value


def section_from_argument(kind: type[Section], value: dict[str, Any]) -> Section:
    """Inverse of ``section_to_argument``. Kubeflow holds every number as a double: whole ones are read as integers."""
    return kind.model_validate_json(json.dumps(_whole_numbers(value)))


def with_raw_data(section: PrepareSection, raw_data: str) -> PrepareSection:
    """``section`` with the images read from ``raw_data``, a path or mounted volume; unchanged where that is empty."""
    if not raw_data:
        return section
    return section.model_copy(update={"data": section.data.model_copy(update={"path": raw_data})})


def tracking(uri: str, experiment: str) -> Tracking:
    """Where a task logs: under the parent run of its pipeline run."""
    return Tracking(uri=uri, experiment=experiment, group=os.environ.get(GROUP_VARIABLE, ""))


def optional_path(text: str) -> Path | None:
    """A path that a pipeline may leave out, which Kubeflow passes as an empty string."""
    return Path(text) if text else None


def fold(run: dict[str, Any]) -> int | None:
    """The fold of cross-validation that a training validates on; None with the fixed split."""
    return int(run["fold"]) if "fold" in run else None


def tuned_parameters(run: dict[str, Any], tuned: Artifact | None) -> Path | None:
    """The file of tuned parameters that a training asks for by its name; None for the others beside it."""
    return Path(tuned.path) / run["tuned"] if tuned is not None and run.get("tuned") else None


def outcome(pipeline: str, status: FinalStatus) -> Outcome:
    """How the run of ``pipeline`` ended, from what Kubeflow hands an exit handler."""
    run = os.environ.get(GROUP_VARIABLE) or status.pipeline_job_resource_name
    return Outcome(pipeline, run, status.state or "", status.error_message or "")


def checkpoints() -> str | None:
    """The folder or ``s3://`` address of a training task's checkpoints; None where nothing outlives the task."""
    return os.environ.get(CHECKPOINTS_VARIABLE) or None


def report_folders(reports: Sequence[Artifact], reference: Artifact | None) -> list[Path]:
    """The folders of ``reports``, and that of ``reference`` unless it is empty."""
    folders = [Path(report.path) for report in reports]
    if reference is not None and (Path(reference.path) / "report.json").is_file():
        folders.append(Path(reference.path))
    return folders


def describe_raw(raw: Artifact) -> tuple[str, str]:
    """Put what names raw data into the artifact's metadata; returns where they lie and what names their content."""
    fetched = _read_json(Path(raw.path) / "fetched.json")
    raw.metadata.update(fetched)
    return str(fetched["path"]), str(fetched["md5"] or fetched["revision"])


def describe_dataset(dataset: Artifact, revision: str) -> None:
    """Put what names a prepared dataset into the artifact's metadata."""
    info = _read_json(Path(dataset.path) / "dataset.json")
    keys = ("content_hash", "num_images", "image_size", "channels", "counts", "source", "label_space", "images")
    dataset.metadata.update({key: info[key] for key in keys if key in info} | {"revision": revision})


def describe_model(model: Artifact) -> None:
    """Put loss, seed, fold and the metric that selected the epoch into the artifact's metadata."""
    card = _read_json(Path(model.path) / "model.json")
    keys = ("seed", "fold", "backbone", "selection", "dataset", "git_commit")
    model.metadata.update(
        {"framework": "pytorch", "loss": card["loss"]["name"]}
        | {key: card[key] for key in keys if card.get(key) is not None}
    )


def describe_recipe(recipe: Recipe, model: Artifact, comparison: str, previous: str) -> list[dict[str, Any]]:
    """Hand over what a retraining starts from; returns one item a training, as ``train_model`` takes it.

    Args:
        recipe: what step ``champion`` returns.
        model: the champion's model.
        comparison: file that gets the section ``compare``.
        previous: file that gets the champion's prepared dataset, or nothing.
    """
    loss = recipe.section.loss.name
    model.metadata.update({"loss": loss} | ({"version": recipe.version} if recipe.version else {}))
    Path(comparison).write_text(json.dumps(section_to_argument(recipe.compare)), encoding="utf-8")
    Path(previous).write_text(str(recipe.previous or ""), encoding="utf-8")
    section = section_to_argument(recipe.section)
    return [{"loss": loss, "seed": seed, "section": section} for seed in recipe.seeds]


def describe_worker(finished: dict[str, int], worker: dict[str, Any], metrics: Metrics) -> None:
    """Hand over how many trials a worker of a study finished."""
    metrics.metadata.update(_whole_numbers(worker))
    _log_metrics(metrics, dict(finished))


def describe_study(study: Artifact, workers: Sequence[Artifact], page: Artifact, metrics: Metrics) -> None:
    """Hand over a study: the parameters to train with, the verdict, and the best trials as a page."""
    best = read_best(Path(study.path) / BEST_FILE)
    keys = ("loss", "kind", "params", "chosen", "better", "verdict", "objective")
    study.metadata.update({key: best[key] for key in keys})
    rows = "".join(
        f"<tr><td>{entry['value']:.4f}</td><td>{escape(json.dumps(entry['values']))}</td></tr>" for entry in best["top"]
    )
    Path(page.path).write_text(
        f"<!doctype html><html><body><h1>{escape(best['loss'])}</h1><p>{escape(best['verdict'])}</p>"
        f"<table><tr><th>{escape(best['objective'])}</th><th>parameters</th></tr>{rows}</table></body></html>",
        encoding="utf-8",
    )
    _log_metrics(metrics, {f"best_{best['objective']}": best["trial"]["value"]})
    finished = [worker.metadata for worker in workers]
    _log_metrics(
        metrics, {f"worker_{int(entry['number'])}/trials": entry["trials"] for entry in finished if "trials" in entry}
    )


def describe_report(report: Artifact, page: Artifact, metrics: Metrics, confusion: ClassificationMetrics) -> None:
    """Hand over a report: its page, its metrics, and the confusion matrix of the test split where there is one.

    An empty report, of a champion that does not exist, has none of them.
    """
    folder = Path(report.path)
    if not (folder / "report.json").is_file():
        Path(page.path).write_text("<p>There is no champion yet.</p>", encoding="utf-8")
        return
    about = _read_json(folder / "report.json")
    report.metadata.update({key: about[key] for key in ("loss", "seed") if about.get(key) is not None})
    shutil.copyfile(folder / "report.html", page.path)
    _log_metrics(metrics, _read_json(folder / "metrics.json"))
    table = folder / "confusion.csv"
    if table.is_file():
        classes = list(about["label_space"]["classes"])
        confusion.log_confusion_matrix(classes, _confusion_matrix(table, classes))


def describe_comparison(comparison: Artifact, page: Artifact, metrics: Metrics) -> None:
    """Hand over a comparison: its page, the winner, and each loss's mean of the metric that chose it."""
    _hand_over_comparison(Path(comparison.path), comparison, page, metrics)


def _hand_over_comparison(folder: Path, comparison: Artifact, page: Artifact, metrics: Metrics) -> None:
    result = _read_json(folder / "comparison.json")
    comparison.metadata.update({key: result[key] for key in ("winner", "recommended", "baseline")})
    shutil.copyfile(folder / "comparison.html", page.path)
    chosen_by = f"val_{result['selection_metric']}"
    _log_metrics(
        metrics,
        {f"{name}/{chosen_by}": loss["metrics"][chosen_by]["mean"] for name, loss in result["losses"].items()},
    )


def describe_folds(comparison: Artifact, page: Artifact, metrics: Metrics) -> None:
    """Hand over a comparison of cross-validation: as ``describe_comparison``, and mean and spread over folds."""
    folder = Path(comparison.path)
    _hand_over_comparison(folder / "comparison", comparison, page, metrics)
    chosen_by = f"val_{_read_json(folder / 'comparison' / 'comparison.json')['selection_metric']}"
    for loss, seeds in _read_json(folder / "folds.json").items():
        for seed, found in seeds.items():
            if chosen_by in found:
                name = f"{loss}/{chosen_by}/seed_{seed}"
                _log_metrics(metrics, {f"{name}/{key}": found[chosen_by][key] for key in ("mean", "sd")})


def describe_registration(registration: Artifact) -> None:
    """Put the outcome of the gate into the artifact's metadata."""
    outcome = _read_json(Path(registration.path) / "registered.json")
    keys = ("registered", "name", "version", "reasons", "remarks", "loss", "seed")
    registration.metadata.update({key: outcome[key] for key in keys if outcome.get(key) is not None})


def describe_promotion(promotion: Artifact) -> None:
    """Put what became of the champion into the artifact's metadata."""
    result = _read_json(Path(promotion.path) / "promoted.json")
    promotion.metadata.update({key: value for key, value in result.items() if value is not None})


def _log_metrics(metrics: Metrics, values: dict[str, float | None]) -> None:
    """Log what is a number: Kubeflow's metadata holds neither null nor NaN."""
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            metrics.log_metric(name, value)


def _confusion_matrix(table: Path, classes: list[str]) -> list[list[int]]:
    """Count a table of ``actual,predicted`` class names into rows (actual) and columns (predicted)."""
    import pandas as pd

    # A class may be called "none" or "NA": names are text, never missing values.
    pairs = pd.read_csv(table, dtype=str, keep_default_na=False)
    counts = pd.crosstab(pairs["actual"], pairs["predicted"]).reindex(index=classes, columns=classes, fill_value=0)
    return [[int(n) for n in row] for row in counts.to_numpy()]


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
