"""The commands of ``raregrade pipeline`` that look at runs on a cluster: list, status, logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from raregrade.cli.checkout import EnvironmentOption, pipelines_module
from raregrade.cli.host import (
    DEFAULT_TIMEOUT,
    HostOption,
    NamespaceOption,
    TimeoutOption,
    TokenOption,
    host_of,
    pods_of,
)
from raregrade.cli.printing import print_table
from raregrade.errors import RaregradeError, UserError

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run, or the address of its page.")]


def status(
    *,
    run: RunArgument,
    env: EnvironmentOption = None,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> None:
    """Show how far a run is, task by task."""
    target = host_of(env, host, namespace, token_file, timeout)
    runs = pipelines_module("runs")
    found = runs.get_run(target, runs.run_id_of(run))
    took = "" if found.seconds is None else f", {_duration(found.seconds)}"
    print(f"{found.name}: {found.state}{took}{f': {found.error}' if found.error else ''}")
    print(found.page)
    if found.tasks:
        print_table(["task", "state", "time"], [[t.name, t.state, _duration(t.seconds)] for t in found.tasks])
    if not found.ended:
        problem = runs.waits_for_image(pods_of(target, found.run_id))
        if problem:
            print(f"the cluster cannot get an image: {problem}")


def list_(
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many to show.")] = 20,
    env: EnvironmentOption = None,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> None:
    """Show the latest runs, newest first."""
    target = host_of(env, host, namespace, token_file, timeout)
    found = pipelines_module("runs").list_runs(target, limit)
    print_table(["run", "name", "state", "time"], [[r.run_id, r.name, r.state, _duration(r.seconds)] for r in found])


def logs(
    *,
    run: RunArgument,
    task: Annotated[str | None, typer.Option("--task", help="Of this task alone, such as train-model.")] = None,
    env: EnvironmentOption = None,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> None:
    """Print what the tasks of a run have written.

    Asked of the cluster with the account that kubectl uses here, else of Kubeflow's UI.
    """
    target = host_of(env, host, namespace, token_file, timeout)
    runs, pods = pipelines_module("runs"), pipelines_module("pods")
    found = runs.get_run(target, runs.run_id_of(run))
    cluster = pods.open_cluster()
    space = target.namespace or "kubeflow"
    seen = [(pod.task, pod.name) for pod in pods.pods_of(cluster, found.run_id, space)]
    sources = seen or [(t.name, pod) for t in found.tasks for pod in t.pods]
    names = sorted({name for name, _ in sources} | {t.name for t in found.tasks})
    if task is not None and task not in names:
        raise UserError(f"run {found.run_id} has no task {task!r}; it has {', '.join(names) or 'none yet'}")
    printed = False
    for name, pod in sources:
        if task in (None, name):
            text = pods.read_log(cluster, pod, space) if seen else runs.read_log_through_ui(target, found, pod)
            if text is not None:
                printed = True
                print(f"== {name} ({pod})\n{text.rstrip()}")
    if not printed:
        raise RaregradeError(
            f"no logs could be had of run {found.run_id}: this machine has no account on the cluster, or the pods are "
            f"gone, and the UI does not hand them out. Look at {found.page}, or try "
            f"`{runs.kubectl_logs(target, found)}`."
        )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


COMMANDS: dict[str, Callable[..., None]] = {"list": list_, "status": status, "logs": logs}
