"""Commands that train and judge models: train, evaluate, compare, compare-folds, show."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from raregrade.cli.options import (
    DataOption,
    LossOption,
    ParamsOptions,
    folders_holding,
    read_json,
    tracking_of,
)
from raregrade.cli.printing import print_next_steps, print_registration, print_table, terminal_width
from raregrade.cli.results import print_comparison
from raregrade.errors import UserError

_COMPARE = "`raregrade compare` writes it."


class Resume(StrEnum):
    AUTO = "auto"
    NEVER = "never"


def train(
    *,
    data: DataOption,
    loss: LossOption,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The model folder to write.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of weights, order and augmentation.")] = 1,
    fold: Annotated[
        int | None, typer.Option("--fold", min=0, help="Validate on this fold of the data and train on the others.")
    ] = None,
    loss_params: Annotated[
        Path | None,
        typer.Option("--loss-params", metavar="FILE", help="Train with what `raregrade tune` found: its best.yaml."),
    ] = None,
    resume: Annotated[
        Resume, typer.Option("--resume", help="auto: continue an interrupted run from its checkpoint.")
    ] = Resume.AUTO,
    checkpoints: Annotated[
        str,
        typer.Option(
            "--checkpoints",
            metavar="FOLDER|S3",
            envvar="RAREGRADE_CHECKPOINTS",
            help="Where interrupted runs are kept: a folder or s3://bucket/prefix.",
        ),
    ] = ".raregrade/checkpoints",
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            "--checkpoint-minutes",
            envvar="RAREGRADE_CHECKPOINT_MINUTES",
            min=0,
            metavar="MINUTES",
            help="How often a run is saved within an epoch. It is also saved after every epoch.",
        ),
    ] = 5.0,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Use only GPU algorithms that repeat bit for bit (train.deterministic)."),
    ] = False,
    options: ParamsOptions,
) -> None:
    """Train one model with one loss and one seed.

    Under torchrun it trains in several processes.

    Example:
        raregrade train --data data/prepared --loss cdw_ce --seed 1 \\
            --out models/cdw_ce/1
    """
    config = options.read(*(["train.deterministic=true"] if deterministic else []))
    from raregrade.config import section

    part = section(config, "train", loss)
    from raregrade.steps.train import train as step
    from raregrade.training.distributed import processes_of_environment

    card = step(
        part,
        data,
        out,
        seed=seed,
        fold=fold,
        loss_params=loss_params,
        tracking=tracking_of(config),
        checkpoints=checkpoints,
        save_minutes=checkpoint_minutes,
        resume=resume is Resume.AUTO,
    )
    if not processes_of_environment().is_main:
        return
    chosen = card["selection"]
    print(f"{out}: val_{chosen['metric']} {chosen['value']:.4f} at epoch {chosen['epoch']}")


def evaluate(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The report folder to write.")],
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FOLDER", help="A model folder, with --data.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FOLDER", help="The prepared dataset, with --model.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", metavar="FILE", help="Any program's predictions, .parquet or .csv, with --labels."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="The label space of --predictions, a JSON file."),
    ] = None,
    options: ParamsOptions,
) -> None:
    """Judge a model, or the predictions of any other program.

    Example:
        raregrade evaluate --model models/cdw_ce/1 --data data/prepared \\
            --out reports/cdw_ce/1
    """
    config = options.read_settings()
    from raregrade.config import section
    from raregrade.steps.evaluate import evaluate as judge_model
    from raregrade.steps.evaluate import evaluate_predictions as judge_predictions

    part = section(config, "evaluate")
    tracking = tracking_of(config)
    if model and data and not predictions and not labels:
        metrics = judge_model(part, model, data, out, tracking=tracking)
    elif predictions and labels and not model and not data:
        metrics = judge_predictions(part, predictions, labels, out, tracking=tracking)
    else:
        raise UserError("evaluate: give either --model and --data, or --predictions and --labels.")
    _print_judgement(out)
    _print_metrics(metrics)
    print(f"report: {out / 'report.html'}")


def compare(
    *,
    reports: Annotated[
        list[Path], typer.Argument(metavar="REPORTS", help="Report folders, or a folder that holds them.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write the comparison.")],
    options: ParamsOptions,
) -> None:
    """Compare losses over seeds, and say which to train with.

    Validation chooses the loss; one test on the test split decides what is claimed.

    Example:
        raregrade compare reports --out comparison
    """
    config = options.read_settings()
    from raregrade.config import section
    from raregrade.steps.compare import compare as step

    folders = folders_holding("report.json", reports)
    _print_comparison(step(section(config, "compare"), folders, out, tracking=tracking_of(config)), out)


def compare_folds(
    *,
    reports: Annotated[
        list[Path], typer.Argument(metavar="REPORTS", help="Report folders, or a folder that holds them.")
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write the comparison and folds.json.")],
    options: ParamsOptions,
) -> None:
    """Compare losses over the folds of cross-validation.

    It takes one report for each loss, seed and fold, of models that `raregrade train --fold` trained.

    Example:
        raregrade compare-folds reports --data data/prepared --out folds
    """
    config = options.read_settings()
    from raregrade.config import section
    from raregrade.steps.compare_folds import compare_folds as step

    folders = folders_holding("report.json", reports, levels=3)
    step(section(config, "compare"), folders, data, out, tracking=tracking_of(config))
    print(f"report: {print_comparison(out)}")


def show(
    *,
    comparison: Annotated[Path, typer.Argument(metavar="FOLDER", help="A comparison.")],
    registered: Annotated[
        Path | None, typer.Option("--registered", metavar="FILE", help="The registered.json that came of it.")
    ] = None,
    options: ParamsOptions,
) -> None:
    """Print a comparison, and what to try next.

    Example:
        raregrade show comparison --registered registered.json
    """
    _print_comparison(read_json(comparison / "comparison.json", _COMPARE), comparison)
    if registered is not None:
        result = read_json(registered, "`raregrade register` writes it.")
        print_registration(result)
        print_next_steps(result, options.read_settings().data.path)


def _print_judgement(out: Path) -> None:
    """Print how the model was decided, and what speaks against it or the data."""
    from raregrade.evaluation.words import alarm_texts
    from raregrade.models.decisions import decided_by

    report = read_json(out / "report.json", "`raregrade evaluate` writes it.")
    for text in report["data_warnings"]:
        print(f"warning: {text}")
    for text in alarm_texts(report["alarms"]):
        print(f"alarm: the model {text}")
    how = f"; {report['decision_fit']['how']}" if report["decision_fit"] else ""
    print(f"decided by: {decided_by(report)}{how}")


def _print_metrics(metrics: dict[str, float]) -> None:
    """Print the metrics over all classes; those of single classes are in the report."""
    from raregrade.config import METRIC_TASKS

    splits = [split for split in ("val", "test") if any(name.startswith(f"{split}_") for name in metrics)]
    names = [name for name in METRIC_TASKS if any(f"{split}_{name}" in metrics for split in splits)]
    cells = [[f"{metrics[f'{s}_{n}']:.4f}" if f"{s}_{n}" in metrics else "" for s in splits] for n in names]
    print_table(["metric", *splits], [[name, *row] for name, row in zip(names, cells, strict=True)])


def _print_comparison(comparison: dict[str, Any], folder: Path) -> None:
    from raregrade.evaluation.table import RUN_FILE, format_summary

    facts = folder / RUN_FILE
    try:
        text = format_summary(comparison, read_json(facts, _COMPARE) if facts.is_file() else None, terminal_width())
    except (KeyError, TypeError, AttributeError) as err:
        raise UserError(f"{folder / 'comparison.json'} is not a comparison. {_COMPARE}") from err
    print(text)
    print(f"report: {folder / 'comparison.html'}")


COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "compare-folds": compare_folds,
    "show": show,
}
