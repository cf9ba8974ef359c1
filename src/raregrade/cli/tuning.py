"""Commands around tuning: tune, dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raregrade.cli.options import DataOption, LossOption, ParamsOptions, tracking_of
from raregrade.errors import UserError

if TYPE_CHECKING:
    from raregrade.config import Params, StudyStorage

StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="FILE|URL",
        envvar="RAREGRADE_TUNE_STORAGE",
        help="Where studies are kept: a file, or postgresql://USER@HOST/DATABASE. Default: `tune.storage`.",
    ),
]


def tune(
    *,
    data: DataOption,
    loss: LossOption,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where to write the result; not with --worker.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Trials at a time on this machine. Default: `tune.workers`."),
    ] = None,
    worker: Annotated[
        bool, typer.Option("--worker", help="Work on the study beside others and write no result.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the study and start anew.")] = False,
    storage: StorageOption = None,
    checkpoints: Annotated[
        str,
        typer.Option(
            "--checkpoints",
            metavar="FOLDER|S3",
            envvar="RAREGRADE_CHECKPOINTS",
            help="Where interrupted trials are kept: a folder or s3://bucket/prefix.",
        ),
    ] = ".raregrade/checkpoints",
    options: ParamsOptions,
) -> None:
    """Tune one loss beside a baseline that gets as many trials.

    What is found is confirmed with fresh seeds before it is called better. An interrupted study is continued by the
    same command.

    Example:
        raregrade tune --data data/prepared --loss lmf --out tuned/lmf
    """
    config = options.read()
    from raregrade.config import section

    part = section(config, "tune", loss)
    common: dict[str, Any] = {
        "storage": _storage(config, storage),
        "tracking": tracking_of(config),
        "checkpoints": checkpoints if "://" in checkpoints else Path(checkpoints),
    }
    from raregrade.steps.tune import tune as step
    from raregrade.steps.tune import tune_worker

    if worker:
        if out is not None or fresh or workers is not None:
            raise UserError("tune --worker works beside others: leave --out, --fresh and --workers to another command.")
        print(f"{tune_worker(part, data, **common)['trials']} trials finished by this worker")
        return
    if out is None:
        raise UserError("tune: give --out, the folder to write.")
    found = step(part, data, out, workers=workers or config.tune.workers, fresh=fresh, **common)
    print(found["verdict"])
    print(f"{out / 'best.yaml'}: train with `raregrade train --loss {loss} --loss-params {out / 'best.yaml'} …`")
    if found["baseline"] is not None:
        print(f"{out / 'baseline.yaml'}: {found['baseline']['loss']}, tuned with as many trials, to compare it with")


def dashboard(
    *,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="To listen on.")] = 8080,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="To listen on.")] = "127.0.0.1",
    storage: StorageOption = None,
    options: ParamsOptions,
) -> None:
    """Open the studies in optuna-dashboard.

    Example:
        raregrade dashboard --port 8081
    """
    config = options.read()
    from raregrade.tuning.dashboard import serve

    serve(_storage(config, storage), host=host, port=port)


def _storage(config: Params, url: str | None) -> StudyStorage:
    """The storage of the parameters, or the one that the command line names."""
    found = config.tune.study_storage()
    return found if url is None else found.model_copy(update={"url": url})


COMMANDS = {"tune": tune, "dashboard": dashboard}
