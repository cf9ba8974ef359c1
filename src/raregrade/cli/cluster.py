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
    DEFAULT_TIMEOUT,
    DataRepoOption,
    DataRevisionOption,
    EnvironmentOption,
    HostOption,
    ImageOption,
    NamespaceOption,
    PipelineArgument,
    TimeoutOption,
    TokenOption,
    find_host,
    read_environment,
    require_kfp,
)
from raregrade.cli.options import PARAMS, ParamsOption, PresetOption, SetOption, read_params
from raregrade.cli.printing import print_table
from raregrade.errors import RaregradeError, UserError

if TYPE_CHECKING:
    from raregrade.kubeflow.host import Host

ExperimentOption = Annotated[
    str | None, typer.Option("--experiment", help="Of Kubeflow; by default tracking.experiment.")
]
RawDataOption = Annotated[
    str | None, typer.Option("--raw-data", help="Where the tasks find the raw images; by default data.path.")
]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Where the tasks keep the prepared images, such as a mounted volume.")
]
CheckImageOption = Annotated[
    bool, typer.Option("--check-image/--no-check-image", help="Ask the registry first whether it has the image.")
]


@dataclass(frozen=True)
class Prepared:
    """A pipeline that is compiled, with the arguments of its run and the experiment that holds it."""

    package: Path
    image: str
    arguments: dict[str, Any]
    experiment: str
    service_account: str | None


def submit(
    *,
    name: PipelineArgument,
    env: EnvironmentOption = None,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    experiment: ExperimentOption = None,
    raw_data: RawDataOption = None,
    data_repo: DataRepoOption = None,
    data_revision: DataRevisionOption = None,
    store: StoreOption = None,
    image: ImageOption = None,
    check_image: CheckImageOption = True,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse what earlier runs have finished.")] = True,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the run has ended, with 1 where it failed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything but the host, and send nothing.")
    ] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    params: ParamsOption = PARAMS,
    preset: PresetOption = None,
    set_: SetOption = None,
) -> None:
    """Send a pipeline to a Kubeflow Pipelines host, and print the address of its run."""
    target = find_host(env, host, namespace, token_file, timeout)
    from raregrade.kubeflow.images import check_image as check_registry
    from raregrade.kubeflow.submit import submit as send
    from raregrade.kubeflow.submit import wait_for

    with _prepared(
        name,
        env=env,
        image=image,
        experiment=experiment,
        raw_data=raw_data,
        data_repo=data_repo,
        data_revision=data_revision,
        store=store,
        params=params,
        preset=preset,
        set_=set_,
    ) as prepared:
        if dry_run:
            trainings = len(prepared.arguments.get("runs", []))
            what = f"{name} with {trainings} trainings" if trainings else name
            print(f"would send {what} in image {prepared.image} to {target.url}")
            return
        if check_image:
            check_registry(prepared.image)
        submitted = send(
            target,
            prepared.package,
            prepared.arguments,
            run_name=f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            experiment=prepared.experiment,
            cache=cache,
            service_account=prepared.service_account,
        )
    print(submitted.page, flush=True)
    if not wait:
        return
    try:
        wait_for(
            target,
            submitted,
            report=lambda state: print(f"run {submitted.run_id}: {state}", flush=True),
            look_at_pods=lambda: _refuse_missing_image(target, submitted.run_id),
        )
    except KeyboardInterrupt as err:  # whose usual answer, to run the same command again, would start another run
        raise RaregradeError(
            f"stopped waiting, and run {submitted.run_id} goes on. `raregrade pipeline status {submitted.run_id}` "
            "shows how far it is."
        ) from err


def schedule(
    *,
    name: Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="Such as compare_losses.")] = None,
    cron: Annotated[
        str | None, typer.Option("--cron", help="When: `minute hour day month weekday`, or the same after seconds.")
    ] = None,
    interval: Annotated[str | None, typer.Option("--interval", help="How often: 90m, 6h, 1d, 2w.")] = None,
    enable: Annotated[bool, typer.Option("--enable", help="Let an existing schedule run on.")] = False,
    disable: Annotated[
        bool, typer.Option("--disable", help="Hold an existing schedule, or with --cron or --interval set it held.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove an existing schedule.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show what is scheduled.")] = False,
    called: Annotated[
        str | None, typer.Option("--name", help="Of the schedule; by default that of its pipeline.")
    ] = None,
    env: EnvironmentOption = None,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    experiment: ExperimentOption = None,
    raw_data: RawDataOption = None,
    data_repo: DataRepoOption = None,
    data_revision: DataRevisionOption = None,
    store: StoreOption = None,
    image: ImageOption = None,
    check_image: CheckImageOption = True,
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            help="Reuse what earlier runs have finished; by default only with --data-repo, whose new data are noticed.",
        ),
    ] = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    params: ParamsOption = PARAMS,
    preset: PresetOption = None,
    set_: SetOption = None,
) -> None:
    """Start a pipeline by the clock: set, hold, show or remove its schedule.

    A schedule replaces the one of its name. Missed times are not caught up with, and no run starts while the
    one before it goes on.
    """
    require_kfp()
    from raregrade.kubeflow.images import check_image as check_registry
    from raregrade.kubeflow.schedule import change_schedule, list_schedules, read_cron, read_interval, set_schedule

    action = _one_action(cron, interval, enable=enable, disable=disable, delete=delete, list_=list_)
    if action != "list" and name is None and called is None:
        raise UserError("which schedule? Name the pipeline, or give --name.")
    if action == "set":
        seconds = None if interval is None else read_interval(interval)
        fields = None if cron is None else read_cron(cron)
        if name is None:
            raise UserError("which pipeline? Name it before the options.")
    target = find_host(env, host, namespace, token_file, timeout)
    if action == "list":
        found = [s for s in list_schedules(target) if (called or name) in (None, s.name)]
        rows = [[s.name, s.when, "enabled" if s.enabled else "disabled", s.page] for s in found]
        print_table(["schedule", "when", "state", "page"], rows)
        return
    if action != "set":
        number = change_schedule(target, str(called or name), action)
        print(f"{called or name}: {action}d{'' if number == 1 else f' ({number} of that name)'}")
        return
    with _prepared(
        str(name),
        env=env,
        image=image,
        experiment=experiment,
        raw_data=raw_data,
        data_repo=data_repo,
        data_revision=data_revision,
        store=store,
        params=params,
        preset=preset,
        set_=set_,
    ) as prepared:
        if check_image:
            check_registry(prepared.image)
        created, replaced = set_schedule(
            target,
            prepared.package,
            prepared.arguments,
            name=called or str(name),
            experiment=prepared.experiment,
            cron=fields,
            interval_seconds=seconds,
            enabled=not disable,
            cache=data_repo is not None if cache is None else cache,
            service_account=prepared.service_account,
        )
    print(f"{created.name}: {created.when}, {'enabled' if created.enabled else 'disabled'}")
    if replaced:
        print(f"replaced {'the schedule' if replaced == 1 else f'{replaced} schedules'} of that name")
    print(created.page)


@contextmanager
def _prepared(
    name: str,
    *,
    env: str | None,
    image: str | None,
    experiment: str | None,
    raw_data: str | None,
    data_repo: str | None,
    data_revision: str | None,
    store: str | None,
    params: Path,
    preset: list[str] | None,
    set_: list[str] | None,
) -> Iterator[Prepared]:
    """Check all that can be checked without the host, and compile. What is given goes before the environment's."""
    environment = read_environment(env)
    overrides = list(set_ or ())
    if environment is not None and environment.tracking_uri is not None:
        overrides.insert(0, f"tracking.uri={environment.tracking_uri}")
    config = read_params(params, overrides, preset)
    from raregrade.kubeflow.compile import arguments_of, compile_pipeline
    from raregrade.kubeflow.images import choose_image
    from raregrade.kubeflow.submit import check_offline

    chosen = choose_image(environment, image)
    arguments = arguments_of(
        name,
        config,
        raw_data=raw_data or (None if data_repo else getattr(environment, "raw_data", None)) or config.data.path,
        data_repo=data_repo or "",
        data_revision=data_revision,
        store=store if store is not None else getattr(environment, "store", None) or "",
    )
    check_offline(arguments)
    if chosen.startswith("localhost/"):
        print(
            f"note: the cluster's nodes must hold the image {chosen} already; --image names another.",
            file=sys.stderr,
        )
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{name}.yaml"
        compile_pipeline(name, package, environment, chosen)
        yield Prepared(
            package,
            chosen,
            arguments,
            experiment or getattr(environment, "experiment", None) or config.tracking.experiment,
            getattr(environment, "service_account", None),
        )


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


def _refuse_missing_image(target: Host, run_id: str) -> None:
    from raregrade.kubeflow.pods import image_problem

    problem = image_problem(target, run_id)
    if problem:
        raise UserError(
            f"the cluster cannot get an image: {problem}. Kubeflow goes on waiting for it: end run {run_id} in the UI, "
            "push the image or give --image with one that is there, and submit again."
        )


COMMANDS: dict[str, Callable[..., None]] = {"submit": submit, "schedule": schedule}
