"""The commands of ``raregrade pipeline`` that send something to a cluster: submit, schedule."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raregrade.cli.cluster_options import (
    HostOptions,
    PipelineArgument,
    RunOptions,
    read_environment,
    require_kfp,
    tracking_of_environment,
)
from raregrade.cli.options import ParamsOptions
from raregrade.cli.printing import print_table
from raregrade.errors import RaregradeError, UserError

if TYPE_CHECKING:
    from raregrade.kubeflow.host import Host


@dataclass(frozen=True)
class Prepared:
    """A pipeline that is compiled, with the arguments of its run and the experiment that holds it."""

    name: str
    package: Path
    image: str
    arguments: dict[str, Any]
    experiment: str
    service_account: str | None


def submit(
    *,
    name: PipelineArgument,
    where: HostOptions,
    what: RunOptions,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse what earlier runs have finished.")] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the run has ended, with 1 if it failed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent, and check all that needs no host.")
    ] = False,
    options: ParamsOptions,
) -> None:
    """Send a pipeline to a cluster and print the page of its run.

    Example:
        raregrade pipeline submit compare_losses --env dev --dry-run
        raregrade pipeline submit compare_losses --env dev --wait
    """
    host = where.find()
    from raregrade.kubeflow.images import check_image
    from raregrade.kubeflow.submit import submit as send

    with _prepared(name, where, what, options) as prepared:
        if dry_run:
            _print_dry_run(prepared, host, cache=cache)
            return
        if what.check_image:
            check_image(prepared.image)
        submitted = send(
            host,
            prepared.package,
            prepared.arguments,
            run_name=f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            experiment=prepared.experiment,
            cache=cache,
            service_account=prepared.service_account,
        )
    print(submitted.page, flush=True)
    if wait:
        _wait(host, submitted)


def schedule(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="PIPELINE", help="Which to start; not needed with --list.")
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option("--cron", metavar="CRON", help="`minute hour day month weekday`, or these after seconds."),
    ] = None,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="TIME", help="How often: 90m, 6h, 1d, 2w.")
    ] = None,
    enable: Annotated[bool, typer.Option("--enable", help="Resume a schedule.")] = False,
    disable: Annotated[
        bool, typer.Option("--disable", help="Pause a schedule; with --cron or --interval, create it paused.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove a schedule.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show what is scheduled.")] = False,
    called: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the schedule. Default: that of its pipeline.")
    ] = None,
    where: HostOptions,
    what: RunOptions,
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            help="Reuse what earlier runs have finished. Default: only with --data-repo, where new data are noticed.",
        ),
    ] = None,
    options: ParamsOptions,
) -> None:
    """Run a pipeline on a schedule.

    Also shows, pauses, resumes and removes schedules. A new one replaces that of the same name. A run that was missed
    is not made up for, and none starts before the one before it has ended.

    Example:
        raregrade pipeline schedule compare_losses --env dev --cron "0 3 * * *"
        raregrade pipeline schedule --env dev --list
    """
    require_kfp()
    from raregrade.kubeflow.schedule import change_schedule, list_schedules, read_cron, read_interval

    action = _one_action(cron, interval, enable=enable, disable=disable, delete=delete, list_=list_)
    title = called or name
    if action == "list":
        found = [s for s in list_schedules(where.find()) if title in (None, s.name)]
        rows = [[s.name, s.when, "enabled" if s.enabled else "disabled", s.page] for s in found]
        print_table(["schedule", "when", "state", "page"], rows)
        return
    if title is None:
        raise UserError("which schedule? Name the pipeline, or give --name.")
    if action != "set":
        number = change_schedule(where.find(), title, action)
        print(f"{title}: {action}d{'' if number == 1 else f' ({number} of that name)'}")
        return
    seconds = None if interval is None else read_interval(interval)
    fields = None if cron is None else read_cron(cron)
    if name is None:
        raise UserError("which pipeline? Name it before the options.")
    host = where.find()
    with _prepared(name, where, what, options) as prepared:
        from raregrade.kubeflow.images import check_image
        from raregrade.kubeflow.schedule import set_schedule

        if what.check_image:
            check_image(prepared.image)
        created, replaced = set_schedule(
            host,
            prepared.package,
            prepared.arguments,
            name=title,
            experiment=prepared.experiment,
            cron=fields,
            interval_seconds=seconds,
            enabled=not disable,
            cache=what.data_repo is not None if cache is None else cache,
            service_account=prepared.service_account,
        )
    print(f"{created.name}: {created.when}, {'enabled' if created.enabled else 'disabled'}")
    if replaced:
        print(f"replaced {'the schedule' if replaced == 1 else f'{replaced} schedules'} of that name")
    print(created.page)


@contextmanager
def _prepared(name: str, where: HostOptions, what: RunOptions, options: ParamsOptions) -> Iterator[Prepared]:
    """Check all that can be checked without the host, and compile."""
    environment = read_environment(where.env)
    params = options.read(defaults=tracking_of_environment(environment))
    from raregrade.kubeflow.compile import compile_pipeline
    from raregrade.kubeflow.images import choose_image

    image = choose_image(environment, what.image)
    arguments = what.arguments(name, params, environment)
    if image.startswith("localhost/"):
        print(f"note: the cluster's nodes must hold the image {image} already; --image names another.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{name}.yaml"
        compile_pipeline(name, package, environment, image)
        yield Prepared(
            name,
            package,
            image,
            arguments,
            what.experiment or (environment and environment.experiment) or params.tracking.experiment,
            environment.service_account if environment else None,
        )


def _print_dry_run(prepared: Prepared, host: Host, *, cache: bool) -> None:
    """What ``submit`` would send: the pipeline, where to, and its arguments as YAML."""
    import yaml

    trainings = len(prepared.arguments.get("runs", ()))
    size = f" with {trainings} training{'s' if trainings > 1 else ''}" if trainings else ""
    print(f"would send {prepared.name}{size} to {host.url}")
    print(f"image: {prepared.image}")
    print(f"namespace: {host.namespace or 'the default of the host'}")
    print(f"experiment: {prepared.experiment}")
    print(f"data revision: {prepared.arguments['data_revision'] or 'the default branch of the repository'}")
    print(f"cache: {'on' if cache else 'off'}")
    print(yaml.safe_dump({"arguments": prepared.arguments}, sort_keys=False, allow_unicode=True, width=120), end="")


def _wait(host: Host, submitted: Any) -> None:
    from raregrade.kubeflow.submit import wait_for

    try:
        wait_for(
            host,
            submitted,
            report=lambda state: print(f"run {submitted.run_id}: {state}", flush=True),
            look_at_pods=lambda: _refuse_missing_image(host, submitted.run_id),
        )
    except KeyboardInterrupt as err:  # whose usual answer, to run the same command again, would start another run
        raise RaregradeError(
            f"stopped waiting, and run {submitted.run_id} goes on. `raregrade pipeline status {submitted.run_id}` "
            "shows how far it is."
        ) from err


def _one_action(
    cron: str | None, interval: str | None, *, enable: bool, disable: bool, delete: bool, list_: bool
) -> str:
    """What ``schedule`` is to do. Raises UserError for nothing, or for several things at once."""
    sets = cron is not None or interval is not None
    asked = {"set": sets, "enable": enable, "disable": disable and not sets, "delete": delete, "list": list_}
    actions = [action for action, wanted in asked.items() if wanted]
    if len(actions) != 1 or (cron is not None and interval is not None):
        raise UserError("give one of --cron, --interval, --enable, --disable, --delete and --list")
    return actions[0]


def _refuse_missing_image(host: Host, run_id: str) -> None:
    from raregrade.kubeflow.pods import image_problem

    problem = image_problem(host, run_id)
    if problem:
        raise UserError(
            f"the cluster cannot get an image: {problem}. Kubeflow goes on waiting for it: end run {run_id} in the UI, "
            "push the image or give --image with one that is there, and submit again."
        )


COMMANDS: dict[str, Callable[..., None]] = {"submit": submit, "schedule": schedule}
