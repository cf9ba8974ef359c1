"""The commands of ``raregrade pipeline`` that look at runs on a cluster: list, status, logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from raregrade.cli.cluster_options import HostOptions
from raregrade.cli.printing import print_table
from raregrade.errors import RaregradeError, UserError

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run, or the address of its page.")]


def status(
    *,
    run: RunArgument,
    where: HostOptions,
) -> None:
    """Show how far a run is, task by task.

    Example:
        raregrade pipeline status 7f9c2e10 --env dev
    """
    host = where.find()
    from raregrade.kubeflow.pods import image_problem
    from raregrade.kubeflow.runs import get_run, run_id_of

    found = get_run(host, run_id_of(run))
    took = "" if found.seconds is None else f", {_duration(found.seconds)}"
    print(f"{found.name}: {found.state}{took}{f': {found.error}' if found.error else ''}")
    print(found.page)
    if found.tasks:
        print_table(["task", "state", "time"], [[t.name, t.state, _duration(t.seconds)] for t in found.tasks])
    if not found.ended:
        problem = image_problem(host, found.run_id)
        if problem:
            print(f"the cluster cannot get an image: {problem}")


def list_(
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many to show.")] = 20,
    where: HostOptions,
) -> None:
    """Show the latest runs, newest first.

    Example:
        raregrade pipeline list --env dev --limit 5
    """
    host = where.find()
    from raregrade.kubeflow.runs import list_runs

    found = list_runs(host, limit)
    print_table(["run", "name", "state", "time"], [[r.run_id, r.name, r.state, _duration(r.seconds)] for r in found])


def logs(
    *,
    run: RunArgument,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="Only this task: train-model.")] = None,
    where: HostOptions,
) -> None:
    """Print what the tasks of a run have written.

    Asked of the cluster with the account that kubectl uses here, else of Kubeflow's UI.

    Example:
        raregrade pipeline logs 7f9c2e10 --env dev --task train-model
    """
    host = where.find()
    from raregrade.kubeflow.pods import open_cluster, pods_of, read_log
    from raregrade.kubeflow.runs import get_run, kubectl_logs, read_log_through_ui, run_id_of

    found = get_run(host, run_id_of(run))
    cluster = open_cluster()
    space = host.namespace or "kubeflow"
    seen = [(pod.task, pod.name) for pod in pods_of(cluster, found.run_id, space)]
    sources = seen or [(t.name, pod) for t in found.tasks for pod in t.pods]
    names = sorted({name for name, _ in sources} | {t.name for t in found.tasks})
    if task is not None and task not in names:
        raise UserError(f"run {found.run_id} has no task {task!r}; it has {', '.join(names) or 'none yet'}")
    printed = False
    for name, pod in sources:
        if task in (None, name):
            text = read_log(cluster, pod, space) if seen else read_log_through_ui(host, found, pod)
            if text is not None:
                printed = True
                print(f"== {name} ({pod})\n{text.rstrip()}")
    if not printed:
        raise RaregradeError(
            f"no logs could be had of run {found.run_id}: this machine has no account on the cluster, or the pods are "
            f"gone, and the UI does not hand them out. Look at {found.page}, or try "
            f"`{kubectl_logs(host, found)}`."
        )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


COMMANDS: dict[str, Callable[..., None]] = {"list": list_, "status": status, "logs": logs}
