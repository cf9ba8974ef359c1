"""Sending a pipeline to a Kubeflow Pipelines host, and waiting for the run.

What can be checked without the host is checked first. What goes wrong on the way to the host, or is
refused by it, becomes one sentence that says what to do.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
from kfp.client import Client

from raregrade.errors import RaregradeError, UserError

_TIMEOUT_SECONDS = (10, 30)  # to connect, to answer
_ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR")


@dataclass(frozen=True)
class Host:
    """A Kubeflow Pipelines API: base URL, namespace (multi-user installations only), bearer token."""

    url: str
    namespace: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class SubmittedRun:
    """A run on a host, and the page that shows it."""

    run_id: str
    page: str


def read_token(path: Path) -> str:
    """The token in ``path``. Raises UserError where there is none."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise UserError(f"cannot read the token file {path}: {err}. Give another --token-file.") from err
    if not token or len(token.split()) > 1:
        raise UserError(f"{path} does not hold a token: expected one word. Give another --token-file.")
    return token


def check_offline(host: Host, arguments: dict[str, Any]) -> None:
    """Refuse what cannot work on a cluster, before anything is sent.

    Raises:
        UserError: the host is no URL; raw data or the tracking store are named by a path that only this machine knows.
    """
    parts = urlsplit(host.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--host {host.url!r} is not a URL; expected such as https://kubeflow.example.org/pipeline")
    raw_data = arguments["raw_data"]
    if not Path(raw_data).is_absolute():
        raise UserError(
            f"the raw data lie at {raw_data!r}, a path in this folder. On a cluster each task has a folder of its own: "
            "give --raw-data with the absolute path at which the tasks find the images, such as a mounted volume."
        )
    uri = arguments["tracking_uri"]
    if uri.startswith(("sqlite:", "file:")):
        raise UserError(
            f"tracking.uri is {uri!r}, a file that would lie in each task and vanish with it. "
            "Give the address of an MLflow server, --set tracking.uri=http://…, or --set tracking.uri=none."
        )


def submit(
    host: Host, package: Path, arguments: dict[str, Any], *, run_name: str, experiment: str, cache: bool = True
) -> SubmittedRun:
    """Start a run of the compiled pipeline ``package``; the experiment is created where it is missing.

    Args:
        host: where to.
        package: compiled YAML.
        arguments: of the pipeline.
        run_name: what the run is called.
        experiment: the Kubeflow experiment that holds it.
        cache: False runs every task anew, whatever earlier runs left.

    Raises:
        UserError: the host cannot be reached, is no Kubeflow Pipelines, or refuses token or namespace.
        RaregradeError: the host fails on its own.
    """
    with _refusals(host):
        _greet(host)
        with _quiet_client():
            run = _client(host).create_run_from_pipeline_package(
                str(package),
                arguments=arguments,
                run_name=run_name,
                experiment_name=experiment,
                namespace=host.namespace,
                enable_caching=None if cache else False,
            )
    return SubmittedRun(run.run_id, f"{host.url.rstrip('/')}/#/runs/details/{run.run_id}")


def wait_for(
    host: Host, run: SubmittedRun, *, report: Callable[[str], None] = lambda _: None, poll_seconds: float = 10.0
) -> None:
    """Return when ``run`` has succeeded; ``report`` is called with each new state.

    kfp's own waiting never ends for a run that somebody cancels.

    Raises:
        RaregradeError: the run ended otherwise.
        UserError: as ``submit``.
    """
    with _quiet_client():
        client = _client(host)
    seen = ""
    while True:
        with _refusals(host):
            found = client.get_run(run.run_id)
        state = str(found.state or "PENDING").upper()
        if state != seen:
            report(state)
            seen = state
        if state in _ENDED:
            break
        time.sleep(poll_seconds)
    if state != "SUCCEEDED":
        reason = getattr(found.error, "message", None)
        raise RaregradeError(f"the run ended as {state}{f': {reason}' if reason else ''}. See {run.page}")


def _greet(host: Host) -> None:
    """Ask the host who it is; kfp.Client would try for half a minute before it gave up."""
    api = kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(_configuration(host)))
    text = api.healthz_service_get_healthz(_preload_content=False, _request_timeout=_TIMEOUT_SECONDS).data
    try:
        answer = json.loads(text)
        multi_user = bool(answer.get("multi_user"))
    except (ValueError, AttributeError) as err:
        raise UserError(
            f"{host.url} answers, but not as Kubeflow Pipelines. Either the address is another page of the same host "
            "(try it with /pipeline at the end), or it shows a login: give --token-file."
        ) from err
    if multi_user and not host.namespace:
        raise UserError(f"{host.url} serves many users: give --namespace with yours.")


def _configuration(host: Host) -> Any:
    configuration = kfp_server_api.Configuration()
    configuration.host = host.url.rstrip("/")
    configuration.retries = 1
    if host.token:
        configuration.api_key["authorization"] = host.token
        configuration.api_key_prefix["authorization"] = "Bearer"
    return configuration


def _client(host: Host) -> Any:
    # kfp takes the name "kubeflow" for "no namespace given" and then asks its context file.
    return Client(host=host.url, existing_token=host.token, namespace=host.namespace or "kubeflow")


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """kfp.Client prints links and warns about servers older than it; what is worth saying is said here."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@contextlib.contextmanager
def _refusals(host: Host) -> Iterator[None]:
    try:
        yield
    except kfp_server_api.ApiException as err:
        raise _refusal(err, host) from err
    except (urllib3.exceptions.HTTPError, OSError) as err:
        reason = str(getattr(err, "reason", None) or err).split(": ", 1)[-1]  # urllib3 puts the connection first
        raise UserError(f"cannot reach {host.url}: {reason}. Check --host, and that the network leads there.") from err


def _refusal(error: Any, host: Host) -> RaregradeError:
    said = _message(error)
    where = f"namespace {host.namespace!r}" if host.namespace else "this host"
    if error.status == 0:  # TLS
        return UserError(f"cannot reach {host.url}: {said}. Check --host and its certificate.")
    if error.status == 401:
        advice = "a fresh token in --token-file" if host.token else "--token-file"
        return UserError(f"{host.url} does not know who is asking ({said}). Give {advice}.")
    if error.status == 403:
        return UserError(
            f"{host.url} knows the token but refuses it {where} ({said}). "
            "Check --namespace, and that the token's account may create runs there."
        )
    if error.status == 404:
        return UserError(f"{host.url} does not find what was asked of {where} ({said}). Check --namespace and --host.")
    if 400 <= error.status < 500:
        return UserError(f"{host.url} refuses the run: {said}.")
    return RaregradeError(f"{host.url} failed with {error.status}: {said}. Try again, or ask who runs it.")


def _message(error: Any) -> str:
    """The server's own words, of whatever form, in one line."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else error.body
    try:
        parsed = json.loads(body)
        text = parsed.get("message") or parsed.get("error") or ""
    except (TypeError, ValueError, AttributeError):
        text = ""
    return " ".join(str(text or error.reason or f"HTTP {error.status}").split()).rstrip(".")[:300]
