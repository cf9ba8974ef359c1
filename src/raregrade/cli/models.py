"""Commands around trained models: register, promote, rollback, models, predict."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raregrade.cli.options import (
    DataOption,
    ParamsOptions,
    folders_holding,
    tracking_of,
)
from raregrade.cli.printing import print_registration, print_table
from raregrade.errors import DataError, UserError

if TYPE_CHECKING:
    from raregrade.registry import PromotionResult
    from raregrade.serving.predictor import Prediction

_REGISTRY_URI = "models:/"
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A registered model.")]


def register(
    *,
    comparison: Annotated[Path, typer.Option("--comparison", metavar="FOLDER", help="A comparison.")],
    models: Annotated[Path, typer.Option("--models", metavar="FOLDER", help="The compared models.")],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the result, as JSON.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The name in the registry. Default: `register.name`.")
    ] = None,
    options: ParamsOptions,
) -> None:
    """Register what a comparison recommends, if the gate agrees.

    That is a loss shown to be better, else the baseline. A refusal is a result: it is written to --out, and the exit
    code is 0.

    Example:
        raregrade register --comparison comparison --models models \\
            --data data/prepared --out registered.json
    """
    config = options.read_settings(*([f"register.name={name}"] if name else []))
    from raregrade.config import section
    from raregrade.steps.register import register as step

    folders = folders_holding("model.json", [models])
    print_registration(step(section(config, "register"), comparison, folders, data, out, tracking=tracking_of(config)))


def promote(
    *,
    name: NameArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version to promote.")],
    to: Annotated[str, typer.Option("--to", metavar="ALIAS", help="The alias to move.")] = "champion",
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="The dataset on which it is tested against the champion."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Apply the gate, but move nothing.")] = False,
    options: ParamsOptions,
) -> None:
    """Make a version the champion, if it passes the gate.

    The gate of params.yaml compares it with the current champion. The exit code is 3 where it refuses.

    Example:
        raregrade promote severity 2 --data data/prepared
    """
    config = options.read_settings()
    from raregrade.registry import promote as move_alias

    moved = move_alias(
        name,
        version,
        alias=to,
        tracking=tracking_of(config),
        gate=config.gate,
        alarms=config.alarms,
        data=data,
        dry_run=dry_run,
    )
    _print_promotion(moved, dry_run=dry_run)


def rollback(
    *,
    name: NameArgument,
    options: ParamsOptions,
) -> None:
    """Make the previous champion the champion again.

    Example:
        raregrade rollback severity
    """
    config = options.read_settings()
    from raregrade.steps.rollback import rollback as step

    _print_promotion(step(name, tracking=tracking_of(config)))


def list_registered(
    *,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this model.")] = None,
    options: ParamsOptions,
) -> None:
    """List the registered versions and their aliases.

    Example:
        raregrade models
    """
    config = options.read_settings()
    from raregrade.config import METRIC_TASKS
    from raregrade.registry import list_models

    versions = list_models(name, tracking_of(config))
    if not versions:
        print("no model is registered; `raregrade register` does it")
        return
    # Those of the test split: validation chose the epochs, so its values flatter.
    metrics = list(dict.fromkeys(m for v in versions for m in v.metrics if m.removeprefix("test_") in METRIC_TASKS))
    rows = [
        [v.name, v.version, ", ".join(v.aliases), v.tags.get("loss", ""), str(len(v.record.get("alarms", [])))]
        + [f"{v.metrics[m]:.4f}" if m in v.metrics else "" for m in metrics]
        for v in versions
    ]
    print_table(["name", "version", "aliases", "loss", "alarms", *metrics], rows)


def predict(
    *,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, and folders of them.")],
    model: Annotated[
        str,
        typer.Option("--model", metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a model folder."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV file instead of printing a table.")
    ] = None,
    options: ParamsOptions,
) -> None:
    """Grade images with a trained model.

    Files that cannot be read are named at the end, with exit code 2; the others are graded.

    Example:
        raregrade predict --model models:/severity@champion scans --csv grades.csv
        raregrade predict --model models/cdw_ce/1 image.png --json
    """
    files = _image_files(images)
    if csv is not None:
        from raregrade.atomic import check_writable

        check_writable(csv)
    from raregrade.serving.predictor import Predictor

    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
        folder = Path(model)
        if model.startswith(_REGISTRY_URI):
            from raregrade.registry import fetch_model

            folder = fetch_model(model, tracking_of(options.read_settings()), Path(scratch))
        predictor = Predictor(folder)
        predictions, problems = predictor.predict_readable(files)
    decision = predictor.model.decision
    if csv is not None:
        _write_csv(csv, predictions, predictor.label_space.prob_columns)
    if as_json:
        print(json.dumps([asdict(p) | {"decision": decision.to_json()} for p in predictions], indent=2))
    elif csv is not None:
        print(f"{csv}: {len(predictions)} of {len(files)} images graded, decided by: {decision}")
    elif predictions:
        rows = [[p.image, _grade_text(p), *(f"{value:.3f}" for value in p.probabilities.values())] for p in predictions]
        print_table(["image", "grade", *predictor.label_space.classes], rows)
        print(f"decided by: {decision}")
    if problems:
        count = f"{len(problems)} of {len(files)} images could not be read and were not graded:"
        raise DataError("\n".join([count, *(f"  {problem}" for problem in problems)]))


def _image_files(paths: list[Path]) -> list[Path]:
    """The files among ``paths``, and the images in the folders among them. Raises UserError for a folder without."""
    from raregrade.data.sources.files import SUFFIXES

    files: list[Path] = []
    for path in paths:
        found = [path]
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not found:
                raise UserError(f"{path}: no images in this folder. They end in {', '.join(sorted(SUFFIXES))}.")
        files += found
    return list(dict.fromkeys(files))


def _grade_text(prediction: Prediction, separator: str = ", ") -> str:
    return prediction.grade if isinstance(prediction.grade, str) else separator.join(prediction.grade)


def _write_csv(path: Path, predictions: list[Prediction], prob_columns: Sequence[str]) -> None:
    """One row for each image: its path, its grade (several joined by ``;``), and each class's probability."""
    import pandas as pd

    from raregrade.atomic import write_text

    columns = ["image", "grade", *prob_columns]
    rows = [[p.image, _grade_text(p, ";"), *p.probabilities.values()] for p in predictions]
    write_text(path, pd.DataFrame(rows, columns=columns).to_csv(index=False))


def _print_promotion(result: PromotionResult, *, dry_run: bool = False) -> None:
    if result.previous == result.version:
        print(f"{result.name}: {result.alias} is version {result.version} already")
        return
    before = f"was version {result.previous}" if result.previous else "was not set"
    print(f"{result.name}: {result.alias} {'would be' if dry_run else 'is now'} version {result.version} ({before})")
    for remark in result.remarks:
        print(f"  {remark}")


COMMANDS = {
    "register": register,
    "promote": promote,
    "rollback": rollback,
    "models": list_registered,
    "predict": predict,
}
