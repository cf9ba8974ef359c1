"""Runs on a host: which there are, how far one is, and what its tasks have written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import kfp_server_api
import urllib3

from raregrade.errors import UserError
from raregrade.kubeflow.host import Host, connect, is_multi_user, read_token, refusals
from raregrade.kubeflow.submit import ENDED

# What Kubeflow adds to the tasks of a pipeline: drivers, executors, loops and their turns.
_INTERNAL = re.compile(r"^(root|executor(\(\d+\))?|for-loop-\d+|iteration-.*|condition.*|exit-handler-\d+|.*-driver)$")


@dataclass(frozen=True)
class Task:
    """A task of a run: name, state, seconds that it took or has taken so far, and the names of its pods."""

    name: str
    state: str
    seconds: float | None
    pods: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A run on a host."""

    run_id: str
    name: str
    state: str
    created: datetime | None
    seconds: float | None
    error: str
    tasks: tuple[Task, ...]
    page: str

    @property
    def ended(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in ENDED


def run_id_of(text: str) -> str:
    """The id in ``text``, which is one or the address of a run's page. Raises UserError for anything else."""
    found = re.search(r"([0-9A-Za-z][0-9A-Za-z-]*)/?$", text.strip())
    if found is None:
        raise UserError(f"{text!r} is no run: give its id, or the address of its page.")
    return found[1]


def get_run(host: Host, run_id: str) -> Run:
    """The run ``run_id``.

    Raises:
        UserError: there is none, or as ``raregrade.kubeflow.submit.submit``.
    """
    api = connect(host)
    is_multi_user(host, api)
    with refusals(host):
        try:
            found = api.runs.run_service_get_run(run_id)
        except kfp_server_api.ApiException as err:
            if err.status == 404:
                raise UserError(
                    f"{host.url} knows no run {run_id}. `raregrade pipeline list` shows which there are."
                ) from err
            raise
    return _run(host, found)


def list_runs(host: Host, limit: int = 20) -> list[Run]:
    """The latest runs in the namespace, newest first. Raises as ``get_run``."""
    api = connect(host)
    options = {"namespace": host.namespace} if is_multi_user(host, api) else {}
    with refusals(host):
        answer = api.runs.run_service_list_runs(page_size=limit, sort_by="created_at desc", **options)
    return [_run(host, found) for found in answer.runs or ()]


def read_log_through_ui(host: Host, run: Run, pod: str) -> str | None:
    """What ``pod`` wrote, as the UI shows it: from the pod, or from the archive once that is gone.

    The API itself hands out no logs. None where there is no UI at this address, or it does not know the pod.
    """
    query = {"podname": pod, "runid": run.run_id, "podnamespace": host.namespace or "kubeflow"}
    if run.created is not None:
        query["createdat"] = run.created.strftime("%Y-%m-%d")
    headers = {} if host.token_file is None else {"Authorization": f"Bearer {read_token(host.token_file)}"}
    url = f"{(host.ui or host.url).rstrip('/')}/k8s/pod/logs?{urlencode(query)}"
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=10.0, read=host.timeout)) as pool:
        try:
            answer = pool.request("GET", url, headers=headers)
        except urllib3.exceptions.HTTPError:
            return None
    is_text = answer.headers.get("Content-Type", "text/plain").startswith("text/plain")
    return answer.data.decode("utf-8", "replace") if answer.status == 200 and is_text else None


def kubectl_logs(host: Host, run: Run) -> str:
    """The command that shows the logs of ``run`` to whoever may ask the cluster itself."""
    namespace = host.namespace or "kubeflow"
    return f"kubectl logs -n {namespace} -l pipeline/runid={run.run_id} -c main --prefix --tail=-1"


def _run(host: Host, found: Any) -> Run:
    state = str(found.state or "PENDING").upper()
    details = (found.run_details.task_details or ()) if found.run_details else ()
    tasks = [_task(task) for task in details if task.display_name and not _INTERNAL.match(task.display_name)]
    return Run(
        found.run_id,
        found.display_name or found.run_id,
        state,
        found.created_at,
        _seconds(found.created_at, found.finished_at, running=state not in ENDED),
        getattr(found.error, "message", None) or "",
        tuple(task for _, task in sorted(tasks, key=lambda pair: pair[0])),
        host.page(f"runs/details/{found.run_id}"),
    )


def _task(detail: Any) -> tuple[float, Task]:
    """The task and when it started, in seconds since 1970."""
    state = str(detail.state or "PENDING").upper()
    started = detail.start_time or detail.create_time
    children = [child.pod_name for child in detail.child_tasks or () if child.pod_name]
    task = Task(
        detail.display_name,
        state,
        _seconds(started, detail.end_time, running=state not in ENDED),
        tuple([detail.pod_name] if detail.pod_name else children),
    )
    return (started.timestamp() if started else float("inf")), task


def _seconds(start: datetime | None, end: datetime | None, *, running: bool) -> float | None:
    """From ``start`` to ``end``; a time that has not come is sent as 1970."""
    if start is None or start.year <= 1970:
        return None
    if end is None or end < start:
        end = datetime.now(UTC) if running else None
    return (end - start).total_seconds() if end else None
