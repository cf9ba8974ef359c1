"""Train jobs of Kubeflow Trainer, through the Kubernetes API and with the account that a cluster gives each pod.

The standard library alone: the image in which tasks run has no Kubernetes client.
"""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raregrade.errors import RaregradeError, UserError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs"
_TIMEOUT_SECONDS = 30.0


class ClusterUnavailableError(RaregradeError):
    """The cluster's API does not answer, or fails on its own: worth asking again."""


@dataclass(frozen=True)
class TrainJobs:
    """The train jobs of a namespace.

    Attributes:
        url: the Kubernetes API.
        namespace: of the jobs.
        account: folder with ``token``, read for each request since the cluster replaces it, and ``ca.crt``.
    """

    url: str
    namespace: str
    account: Path

    @classmethod
    def in_cluster(cls, account: Path = ACCOUNT) -> TrainJobs:
        """Those of the cluster and namespace that this process runs in. Raises UserError outside a cluster."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (account / "namespace").is_file():
            raise UserError(
                "a training over several nodes is started by the cluster, and this process does not run in one. "
                "Submit the pipeline, or write the job with `raregrade pipeline trainjob`."
            )
        host = f"[{host}]" if ":" in host else host
        return cls(f"https://{host}:{port}", (account / "namespace").read_text("utf-8").strip(), account)

    def create(self, job: dict[str, Any]) -> None:
        """Start ``job``.

        Raises:
            UserError: the cluster refuses it.
            ClusterUnavailableError: the cluster does not answer.
        """
        self._ask("POST", "", job)

    def state(self, name: str) -> tuple[str, str]:
        """``Complete``, ``Failed`` or ``Running``, and what the cluster says of it. Raises as ``create``."""
        conditions = self._ask("GET", f"/{name}").get("status", {}).get("conditions") or []
        for condition in conditions:
            if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
                return str(condition["type"]), str(condition.get("message") or condition.get("reason") or "")
        return "Running", ""

    def delete(self, name: str) -> None:
        """Remove the job and its pods. Raises as ``create``."""
        self._ask("DELETE", f"/{name}", {"kind": "DeleteOptions", "propagationPolicy": "Foreground"})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the address is the cluster's own
            self.url + _PATH.format(namespace=self.namespace) + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {(self.account / 'token').read_text('utf-8').strip()}",
                "Content-Type": "application/json",
            },
        )
        authority = self.account / "ca.crt"
        context = ssl.create_default_context(cafile=str(authority)) if authority.is_file() else None
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context) as answer:  # noqa: S310
                value: dict[str, Any] = json.load(answer)
                return value
        except urllib.error.HTTPError as err:
            raise _refusal(err, method) from err
        except (OSError, ValueError) as err:
            raise ClusterUnavailableError(f"the Kubernetes API at {self.url} does not answer: {err}") from err


def _refusal(error: urllib.error.HTTPError, method: str) -> RaregradeError:
    try:
        said = str(json.load(error).get("message") or error.reason)
    except (OSError, ValueError, AttributeError):
        said = str(error.reason)
    if error.code == 429 or error.code >= 500:
        return ClusterUnavailableError(f"the Kubernetes API failed with {error.code}: {said}")
    if error.code in (401, 403):
        return UserError(
            f"the task's account may not {method} train jobs ({said}). Give it the role of "
            "infra/kubernetes/components/train-jobs."
        )
    if error.code == 404 and method == "POST":
        return UserError(f"the cluster knows no train jobs ({said}). Install Kubeflow Trainer, or train on one node.")
    return UserError(f"the cluster refuses the train job: {said}")
