"""The connection to a Kubeflow Pipelines host: who asks, how long it may take, and what its refusals mean.

The client that Kubeflow generates from its API (``kfp_server_api``) is used as it is, without ``kfp.Client`` around
it: that one sets no timeout, takes a login page for an empty answer, and switches the cache off for the outermost
tasks alone. Every request here ends, and what goes wrong becomes one sentence that says what to do.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import kfp_server_api
import urllib3

from raregrade.errors import RaregradeError, UserError

TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 - names a variable that names a file
IN_CLUSTER_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
IN_CLUSTER_URL = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 10.0


class UnreachableError(UserError):
    """Nobody answers at the address: it may be wrong, or the network may be."""


class HostFailedError(RaregradeError):
    """The host answers too late, or with a failure of its own."""


@dataclass(frozen=True)
class Host:
    """A Kubeflow Pipelines API.

    Attributes:
        url: base URL, without ``/apis``.
        namespace: where runs go, on an installation for many users.
        token_file: read for each request, since a cluster replaces such a file before its token expires.
        ui: base URL of the pages, where that is another one.
        timeout: seconds until a request counts as unanswered.
    """

    url: str
    namespace: str | None = None
    token_file: Path | None = None
    ui: str | None = None
    timeout: float = TIMEOUT_SECONDS

    def page(self, path: str) -> str:
        """The address of a page of the UI, such as ``runs/details/ID``."""
        return f"{(self.ui or self.url).rstrip('/')}/#/{path}"


class Api(NamedTuple):
    """The parts of a host's API that are used here."""

    health: Any
    experiments: Any
    runs: Any
    schedules: Any


def find_token_file(given: Path | None) -> Path | None:
    """Where the token lies: ``given``, or inside a cluster the file that it projects into the pod; None without.

    Raises:
        UserError: what was named holds no token.
    """
    named = os.environ.get(TOKEN_VARIABLE)
    path = given or (Path(named) if named else None)
    if path is None and IN_CLUSTER_TOKEN.exists():
        path = IN_CLUSTER_TOKEN
    if path is not None:
        read_token(path)
    return path


def find_url(given: str | None) -> str:
    """The API's address: ``given``, or inside a cluster that of its own Kubeflow Pipelines.

    Raises:
        UserError: none is given and this is no cluster, or it is no URL.
    """
    if given is None:
        if not IN_CLUSTER_TOKEN.exists() and not os.environ.get(TOKEN_VARIABLE):
            raise UserError("which cluster? Give --env, or --host with the address of Kubeflow Pipelines.")
        return IN_CLUSTER_URL
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--host {given!r} is not a URL; expected such as https://kubeflow.example.org/pipeline")
    return given.rstrip("/")


def find_namespace(given: str | None) -> str | None:
    """The namespace: ``given``, or inside a cluster that of the pod; None without."""
    if given is not None or not IN_CLUSTER_NAMESPACE.is_file():
        return given
    return IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip() or None


def read_token(path: Path) -> str:
    """The token in ``path``. Raises UserError where there is none."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise UserError(f"cannot read the token file {path}: {err}. Give another --token-file.") from err
    if not token or len(token.split()) > 1:
        raise UserError(f"{path} does not hold a token: expected one word. Give another --token-file.")
    return token


def connect(host: Host) -> Api:
    """The API of ``host``; nothing is sent yet."""
    configuration = kfp_server_api.Configuration()
    configuration.host = host.url
    configuration.retries = 1  # of reading requests and of connecting; a POST that may have arrived is never repeated
    configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE")
    if host.token_file is not None:
        token_file = host.token_file
        configuration.api_key["authorization"] = read_token(token_file)  # without one here, none would be sent
        configuration.api_key_prefix["authorization"] = "Bearer"
        configuration.refresh_api_key_hook = lambda c: c.api_key.update(authorization=read_token(token_file))
    client = _Client(configuration, host)
    return Api(
        kfp_server_api.HealthzServiceApi(client),
        kfp_server_api.ExperimentServiceApi(client),
        kfp_server_api.RunServiceApi(client),
        kfp_server_api.RecurringRunServiceApi(client),
    )


def is_multi_user(host: Host, api: Api) -> bool:
    """Whether ``host`` serves many users. Its first answer also shows whether it is Kubeflow Pipelines at all.

    Raises:
        UserError: nobody answers, somebody else does, or the namespace is missing.
    """
    with refusals(host):
        many = bool(api.health.healthz_service_get_healthz().multi_user)
    if many and not host.namespace:
        raise UserError(f"{host.url} serves many users: give --namespace with yours.")
    return many


@contextlib.contextmanager
def refusals(host: Host) -> Iterator[None]:
    """Turn what a request to ``host`` raises into one sentence."""
    try:
        yield
    except kfp_server_api.ApiException as err:
        raise _refusal(err, host) from err
    except (urllib3.exceptions.HTTPError, OSError) as err:
        raise _no_answer(err, host) from err


class _Client(kfp_server_api.ApiClient):  # type: ignore[misc]
    """Ends every request, and takes nothing but JSON for an answer."""

    def __init__(self, configuration: Any, host: Host) -> None:
        super().__init__(configuration)
        self._host = host

    def request(self, *arguments: Any, **options: Any) -> Any:
        options["_request_timeout"] = (min(_CONNECT_SECONDS, self._host.timeout), self._host.timeout)
        response = super().request(*arguments, **options)
        try:
            json.loads(response.data)
        except ValueError as err:
            raise UserError(
                f"{self._host.url} answers, but not as Kubeflow Pipelines. Either the address is another page of the "
                "same host (try it with /pipeline at the end), or it shows a login: give --token-file."
            ) from err
        return response


def _no_answer(error: Exception, host: Host) -> RaregradeError:
    """No answer came: the host is not there, hung up, or takes too long."""
    cause: Any = getattr(error, "reason", None) or error
    if isinstance(cause, urllib3.exceptions.ReadTimeoutError):
        return HostFailedError(
            f"{host.url} did not answer within {host.timeout:g} s. Try again, or allow it more with --timeout."
        )
    if isinstance(cause, urllib3.exceptions.SSLError):
        return UnreachableError(
            f"cannot reach {host.url}: {cause}. Check --host and its certificate; SSL_CERT_FILE names a file "
            "with the authority that signed it."
        )
    if isinstance(cause, urllib3.exceptions.ProtocolError) and len(cause.args) > 1:
        cause = cause.args[1]
    reason = str(cause).split(": ", 1)[-1].rstrip(".")  # urllib3 puts the connection first
    return UnreachableError(f"cannot reach {host.url}: {reason}. Check --host, and that the network leads there.")


def _refusal(error: Any, host: Host) -> RaregradeError:
    said = _message(error)
    where = f"namespace {host.namespace!r}" if host.namespace else "this host"
    if error.status == 401:
        advice = "a fresh token in --token-file" if host.token_file else "--token-file"
        return UserError(f"{host.url} does not know who is asking ({said}). Give {advice}.")
    if error.status == 403:
        return UserError(
            f"{host.url} knows the token but refuses it {where} ({said}). "
            "Check --namespace, and that the token's account may create runs there."
        )
    if error.status == 404:
        return UserError(f"{host.url} does not find what was asked of {where} ({said}). Check --namespace and --host.")
    if error.status == 409:
        return UserError(f"{host.url} has something of that name already ({said}). Choose another name.")
    if 400 <= error.status < 500 and error.status != 429:
        return UserError(f"{host.url} refuses the request: {said}.")
    return HostFailedError(f"{host.url} failed with {error.status}: {said}. Try again, or ask who runs it.")


def _message(error: Any) -> str:
    """The server's own words, of whatever form, in one line."""
    try:
        parsed = json.loads(error.body)
        text = parsed.get("message") or parsed.get("error") or ""
    except (TypeError, ValueError, AttributeError):
        text = ""
    return " ".join(str(text or error.reason or f"HTTP {error.status}").split()).rstrip(".")[:300]
