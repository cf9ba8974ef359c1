"""Sending a pipeline to a Kubeflow Pipelines host, and waiting for the run.

What can be checked without the host is checked first.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import yaml

from raregrade.errors import RaregradeError, UserError
from raregrade.kubeflow.host import Api, Host, HostFailedError, UnreachableError, connect, is_multi_user, refusals

ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR")
_EQUALS = 1  # the number that stands for it in the API's filters
_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class SubmittedRun:
    """A run on a host, and the page that shows it."""

    run_id: str
    page: str


def check_offline(arguments: dict[str, Any]) -> None:
    """Refuse what cannot work on a cluster, before anything is sent.

    Raises:
        UserError: raw data, their repository, a study or the tracking store are named by a path that only this
            machine knows, or data of a repository have no store.
    """
    raw_data, repo = arguments.get("raw_data", ""), arguments.get("data_repo", "")
    if repo:
        _check_repository(repo, arguments.get("store", ""))
    elif raw_data and not Path(raw_data).is_absolute():
        raise UserError(
            f"the raw data lie at {raw_data!r}, a path in this folder. On a cluster each task has a folder of its own: "
            "give --raw-data with the absolute path at which the tasks find the images, such as a mounted volume."
        )
    uri = arguments.get("tracking_uri", "none")
    if uri.startswith(("sqlite:", "file:")):
        raise UserError(
            f"tracking.uri is {uri!r}, a file that would lie in each task and vanish with it. "
            "Give the address of an MLflow server, --set tracking.uri=http://…, or --set tracking.uri=none."
        )
    study = arguments.get("storage", {}).get("url", "")
    if study and "://" not in study and not Path(study).is_absolute():
        raise UserError(
            f"tune.storage is {study!r}, a file in this folder, and the workers of a cluster could not share it. "
            "Give a database, --set tune.storage=postgresql://USER@HOST/DATABASE, and its password to the tasks as "
            "PGPASSWORD, from a secret."
        )


def _check_repository(repo: str, store: str) -> None:
    if not re.match(r"^(\w[\w+.-]*://|[^/\s]+@[^/\s:]+:|/)", repo):
        raise UserError(
            f"--data-repo is {repo!r}, a folder of this machine. Give the address from which tasks reach the "
            "repository, such as https://git.example.org/team/data.git."
        )
    if urlsplit(repo).password:
        raise UserError(
            "--data-repo holds a password, and the arguments of a pipeline are there for all to read. "
            "Leave it out of the address."
        )
    if not store:
        raise UserError("--data-repo needs --store, a folder on a volume that all tasks mount, for what is fetched.")


def submit(
    host: Host,
    package: Path,
    arguments: dict[str, Any],
    *,
    run_name: str,
    experiment: str,
    cache: bool = True,
    service_account: str | None = None,
) -> SubmittedRun:
    """Start a run of the compiled pipeline ``package``; the experiment is created where it is missing.

    Args:
        host: where to.
        package: compiled YAML.
        arguments: of the pipeline.
        run_name: what the run is called.
        experiment: the Kubeflow experiment that holds it.
        cache: False runs every task anew, whatever earlier runs left.
        service_account: the Kubernetes account that the tasks act as; the host's default where None.

    Raises:
        UserError: the host cannot be reached, is no Kubeflow Pipelines, or refuses token, namespace or run.
        RaregradeError: the host fails on its own.
    """
    api = connect(host)
    body = kfp_server_api.V2beta1Run(
        experiment_id=experiment_id(host, api, experiment),
        display_name=run_name,
        pipeline_spec=pipeline_spec(package, cache=cache),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=arguments),
        service_account=service_account,
    )
    try:
        with refusals(host):
            run = api.runs.run_service_create_run(run=body)
    except (HostFailedError, UnreachableError) as err:
        raise HostFailedError(
            f"{err} The run may have started all the same: look for {run_name!r} at {host.page('runs')} first."
        ) from err
    return SubmittedRun(run.run_id, host.page(f"runs/details/{run.run_id}"))


def experiment_id(host: Host, api: Api, name: str) -> str:
    """The id of the experiment ``name``, which is created where there is none. Raises as ``submit``."""
    namespace = host.namespace if is_multi_user(host, api) else None
    found = _find_experiment(host, api, name, namespace)
    if found is None:
        try:
            with refusals(host):
                found = api.experiments.experiment_service_create_experiment(
                    experiment=kfp_server_api.V2beta1Experiment(display_name=name, namespace=namespace)
                )
        except UserError:  # somebody else may have created it since
            found = _find_experiment(host, api, name, namespace)
            if found is None:
                raise
    return str(found.experiment_id)


def pipeline_spec(package: Path, *, cache: bool = True) -> dict[str, Any]:
    """The two documents of a compiled pipeline as the API takes them."""
    documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    spec: dict[str, Any] = documents[0]
    if not cache:
        for component in (spec["root"], *spec["components"].values()):
            for task in component.get("dag", {}).get("tasks", {}).values():
                task["cachingOptions"] = {}
    return {"pipeline_spec": spec, "platform_spec": documents[1]} if len(documents) > 1 else spec


def wait_for(
    host: Host,
    run: SubmittedRun,
    *,
    report: Callable[[str], None] = lambda _: None,
    look_at_pods: Callable[[], None] = lambda: None,
    poll_seconds: float = 10.0,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> None:
    """Return when ``run`` has succeeded; ``report`` is called with each new state.

    A host that fails or falls silent is asked again for ``patience_seconds``. ``look_at_pods`` is called while
    the run goes on, and raises where it cannot succeed: Kubeflow itself waits for ever for an image that is not there.

    Raises:
        RaregradeError: the run ended otherwise.
        UserError: as ``submit``, or as ``look_at_pods``.
    """
    api = connect(host)
    last_state = ""
    last_answer = time.monotonic()
    while True:
        try:
            with refusals(host):
                found = api.runs.run_service_get_run(run.run_id)
        except (HostFailedError, UnreachableError) as err:
            if time.monotonic() - last_answer > patience_seconds:
                raise
            report(f"{err} Asking again in {poll_seconds:g} s.")
            time.sleep(poll_seconds)
            continue
        last_answer = time.monotonic()
        state = str(found.state or "PENDING").upper()
        if state != last_state:
            report(state)
            last_state = state
        if state in ENDED:
            break
        look_at_pods()
        time.sleep(poll_seconds)
    if state != "SUCCEEDED":
        reason = getattr(found.error, "message", None)
        raise RaregradeError(f"the run ended as {state}{f': {reason}' if reason else ''}. See {run.page}")


def _find_experiment(host: Host, api: Api, name: str, namespace: str | None) -> Any:
    predicate = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    options = {"namespace": namespace} if namespace else {}
    with refusals(host):
        answer = api.experiments.experiment_service_list_experiments(
            filter=json.dumps({"predicates": [predicate]}), **options
        )
    return answer.experiments[0] if answer.experiments else None
