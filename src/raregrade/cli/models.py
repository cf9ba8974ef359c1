"""Commands around trained models: register, promote, rollback, models, predict."""

from __future__ import annotations

import json
import tempfile
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

if TYPE_CHECKING:
    from raregrade.registry import PromotionResult

_REGISTRY_URI = "models:/"


def register(
    *,
    comparison: Annotated[Path, typer.Option("--comparison", help="The folder of a comparison.")],
    models: Annotated[Path, typer.Option("--models", help="The folder that holds the compared models.")],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="The file to write, registered.json.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The name in the registry; by default `register.name`.")
    ] = None,
    options: ParamsOptions,
) -> None:
    """Register what a comparison recommends, if the gate lets it: a loss shown to be better, else the baseline.

    A refusal is a result, written to --out, and not an error.
    """
    config = options.read(*([f"register.name={name}"] if name else []))
    from raregrade.config import section
    from raregrade.steps.register import register as step

    folders = folders_holding("model.json", [models])
    print_registration(step(section(config, "register"), comparison, folders, data, out, tracking=tracking_of(config)))


def promote(
    *,
    name: Annotated[str, typer.Argument(help="A registered model.")],
    version: Annotated[str, typer.Argument(help="The version to promote.")],
    to: Annotated[str, typer.Option("--to", metavar="ALIAS", help="The alias to move.")] = "champion",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="The prepared dataset on which it is tested against the champion."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Apply the gate, move nothing.")] = False,
    options: ParamsOptions,
) -> None:
    """Point `champion` at a version, if the gate lets it.

    The gate of the parameters compares it with the version that is champion now. Exit code 3 where it refuses.
    """
    config = options.read()
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
    name: Annotated[str, typer.Argument(help="A registered model.")],
    options: ParamsOptions,
) -> None:
    """Point `champion` back at the version that had it before."""
    config = options.read()
    from raregrade.registry import rollback as move_back

    _print_promotion(move_back(name, tracking=tracking_of(config)))


def list_registered(
    *,
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    options: ParamsOptions,
) -> None:
    """List the registered versions and their aliases."""
    config = options.read()
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
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[str, typer.Option("--model", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a model folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    options: ParamsOptions,
) -> None:
    """Grade images."""
    from raregrade.serving.predictor import Predictor

    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
        folder = Path(model)
        if model.startswith(_REGISTRY_URI):
            from raregrade.registry import fetch_model

            folder = fetch_model(model, tracking_of(options.read()), Path(scratch))
        predictor = Predictor(folder)
        predictions = predictor.predict(images)
    if as_json:
        print(json.dumps([asdict(p) for p in predictions], indent=2))
        return
    classes = list(predictions[0].probabilities)
    rows = [
        [p.image, p.grade if isinstance(p.grade, str) else ", ".join(p.grade)]
        + [f"{p.probabilities[c]:.3f}" for c in classes]
        for p in predictions
    ]
    print_table(["image", "grade", *classes], rows)
    print(f"decided by: {predictor.model.decision}")


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
