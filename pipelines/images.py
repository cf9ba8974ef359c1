"""Asking a registry whether it has an image, before a cluster waits for one that is not there.

Kubeflow does not fail a run whose image cannot be pulled: its tasks stay pending. Only a plain "no" counts here:
a registry that asks for a login, does not answer or speaks otherwise may still serve the cluster.
"""

from __future__ import annotations

import json
import re
from typing import Any

import urllib3

from raregrade.errors import UserError

_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_UNKNOWN = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN"})
_REFERENCE = re.compile(r"^(?P<host>[^/]+)/(?P<path>[^@:]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$")


def check_image(reference: str) -> bool:
    """Whether the registry of ``reference`` says that it has the image; False where that cannot be told.

    Raises:
        UserError: the registry says that it has not.
    """
    parts = _REFERENCE.match(reference)
    if parts is None or not _is_registry(parts["host"]):
        return False
    host = parts["host"]
    name = parts["digest"] or parts["tag"] or "latest"
    # As the engines do it: plain HTTP on this machine, TLS everywhere else.
    scheme = "http" if host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
    url = f"{scheme}://{host}/v2/{parts['path']}/manifests/{name}"
    with urllib3.PoolManager(retries=False, timeout=_TIMEOUT, headers={"Accept": _MANIFESTS}) as pool:
        try:
            status = pool.request("HEAD", url).status
            refused = status == 404 and _codes(pool.request("GET", url)) & _UNKNOWN
        except urllib3.exceptions.HTTPError:
            return False
    if refused:
        raise UserError(
            f"the registry {host} has no image {reference}, so no task could start. "
            "Build and push it, give --image with one that is there, or --no-check-image where the cluster has its own."
        )
    return status == 200


def _is_registry(host: str) -> bool:
    """Whether the first part of a reference is an address; `localhost/` alone marks an image of this machine."""
    return "." in host or ":" in host


def _codes(answer: Any) -> set[str]:
    """The error codes of a registry's answer; none where it is no such answer."""
    try:
        return {str(error["code"]) for error in json.loads(answer.data)["errors"]}
    except (ValueError, KeyError, TypeError):
        return set()
