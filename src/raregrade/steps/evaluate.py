"""Step ``evaluate``: predictions of a model, or of any other program, to a report."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from raregrade.config import EvaluateSection
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import DataError, ModelError
from raregrade.labels import LabelSpace
from raregrade.steps.identity import dataset_identity
from raregrade.tracking import Tracking, start_step

_SPLITS = ("val", "test")
_logger = logging.getLogger(__name__)


def evaluate(section: EvaluateSection, model: Path, data: Path, out: Path, *, tracking: Tracking) -> dict[str, float]:
    """Predict the validation and test split with ``model`` and write the report folder ``out``.

    Returns:
        The metrics, named ``val_…`` and ``test_…``.

    Raises:
        ModelError: the model does not fit the dataset.
    """
    from raregrade.evaluation.decision_fit import fit_decision
    from raregrade.evaluation.predictions import make_predictions
    from raregrade.evaluation.report import HISTORY, Judged, write_report
    from raregrade.models.folder import load_model, read_card, weights_sha256

    card = read_card(model)
    # A model of cross-validation is judged on the fold that it was not trained on.
    dataset = PreparedDataset.open(data, fold=card.get("fold"))
    _check_fit(card, dataset, model, data)
    identity = dataset_identity(dataset)
    loss, seed = card["loss"]["name"], card["seed"]
    with start_step(
        tracking.for_dataset(dataset.content_hash), "evaluate", name=f"evaluate {loss} seed {seed}", data=identity
    ) as run:
        rows = np.concatenate([dataset.rows(split) for split in _SPLITS])
        loaded = load_model(model, device=_device())
        logits = loaded.predict(dataset.images(rows), section.evaluate.batch_size)
        manifest = dataset.manifest.iloc[rows]
        predictions = make_predictions(
            dataset.label_space,
            image_id=manifest["image_id"].to_numpy(),
            group_id=manifest["group_id"].to_numpy(),
            split=manifest["split"].to_numpy(),
            targets=dataset.targets(rows),
            probs=loaded.probabilities(logits),
            logits=logits,
        )
        judged = Judged(
            title=f"{loss}, seed {seed}",
            card={**card, "model": weights_sha256(model)},
            decision=fit_decision(predictions, section.evaluate, loaded.decision, section.selection_metric),
            data_warnings=dataset.info.get("warnings", []),
            alarms=section.alarms,
            history=history if (history := model / HISTORY).is_file() else None,
        )
        metrics = write_report(predictions, out, judged)
        run.log_params({"loss": loss, "kind": card["loss"]["kind"], "seed": seed})
        run.log_metrics(metrics)
        run.log_artifacts(out / "figures", under="figures")
        run.log_artifacts(out / "report.html")
        run.log_artifacts(out / "metrics.json")
    return metrics


def evaluate_predictions(
    section: EvaluateSection, predictions: Path, labels: Path, out: Path, *, tracking: Tracking
) -> dict[str, float]:
    """Judge the predictions of any program: a table of probabilities, and a JSON file with the label space.

    What the table does not say and is assumed (no split, no groups) is logged as a warning.

    Raises:
        DataError: a file is missing or wrong; names file and row.
    """
    from raregrade.evaluation.decision_fit import fit_decision
    from raregrade.evaluation.predictions import read_predictions
    from raregrade.evaluation.report import Judged, write_report
    from raregrade.models.decisions import default_decision

    try:
        label_space = LabelSpace.from_json(json.loads(labels.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
        raise DataError(
            f"cannot read the label space {labels}: {err}. Expected JSON such as "
            '{"task": "ordinal", "classes": ["none", "mild", "severe"]}.'
        ) from err
    table = read_predictions(predictions, label_space)
    for assumption in table.assumptions:
        _logger.warning("assumed: %s", assumption)
    with start_step(tracking, "evaluate", name=f"evaluate {predictions.name}", data=None) as run:
        own = default_decision(label_space)
        decision = fit_decision(table, section.evaluate, own, section.selection_metric)
        metrics = write_report(table, out, Judged(predictions.name, decision=decision, alarms=section.alarms))
        run.log_metrics(metrics)
        run.log_artifacts(out / "figures", under="figures")
        run.log_artifacts(out / "report.html")
    return metrics


def _check_fit(card: dict[str, object], dataset: PreparedDataset, model: Path, data: Path) -> None:
    wanted = {
        "label space": (card["label_space"], dataset.label_space.to_json()),
        "image size": (card["image_size"], dataset.image_size),
        "channels": (card["channels"], dataset.channels),
    }
    for what, (of_model, of_data) in wanted.items():
        if of_model != of_data:
            raise ModelError(
                f"the model {model} does not fit the dataset {data}: {what} {of_model} against {of_data}. "
                "Evaluate it on data prepared with its own settings, or train a model on these."
            )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
