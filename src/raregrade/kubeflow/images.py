"""The image that the tasks run in: which one, and whether a registry has it.

Kubeflow does not fail a run whose image cannot be pulled: its tasks stay pending. So the registry is asked first, and
only a plain "no" counts: one that asks for a login, does not answer or speaks otherwise may still serve the cluster.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import urllib3

from raregrade import __version__
from raregrade.errors import UserError
from raregrade.kubeflow.environments import Environment, checkout
from raregrade.tracking import git_commit

VARIABLE = "RAREGRADE_IMAGE"
DEFAULT_IMAGE = f"localhost/raregrade:{__version__}"
# What the components name; a pipeline that is compiled for another image replaces it.
IMAGE = os.environ.get(VARIABLE) or DEFAULT_IMAGE

_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_TAG = re.compile(r":([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})$")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_UNKNOWN = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN"})
_REFERENCE = re.compile(r"^(?P<host>[^/]+)/(?P<path>[^@:]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$")


def pinned_image(reference: str) -> str:
    """``reference`` where it names one image for good.

    A cluster keeps what it has pulled, and Kubeflow reuses the output of tasks by the name of their image: under a
    tag that moves, two runs of one pipeline would be two programs.

    Raises:
        UserError: no tag, or the tag ``latest``.
    """
    if _DIGEST.search(reference):
        return reference
    tag = _tag(reference)
    if tag is None:
        raise UserError(
            f"the image {reference} has no tag. Give --image {reference}:TAG; the git commit is a good one."
        )
    if tag == "latest":
        raise UserError(
            f"the image {reference} is tagged `latest`, which is another image tomorrow. "
            "Give --image with a tag that stays, such as the git commit."
        )
    return reference


def choose_image(environment: Environment | None, asked: str | None) -> str:
    """The image of the tasks: ``asked``, else what RAREGRADE_IMAGE names, else that of the environment or this version.

    An environment that names a repository alone gets the git commit of this checkout as tag, or the version of an
    installed package.

    Raises:
        UserError: for an environment, the tag is missing or ``latest``, or this checkout is no commit.
    """
    asked = asked or os.environ.get(VARIABLE) or None
    if environment is None:
        return asked or DEFAULT_IMAGE
    if asked is not None or _DIGEST.search(environment.image) or _tag(environment.image):
        return pinned_image(asked or environment.image)
    root = checkout()
    if root is None:
        return f"{environment.image}:{__version__}"
    commit = git_commit(root)
    if commit == "unknown" or commit.endswith("-dirty"):
        why = "has changes that no commit holds" if commit.endswith("-dirty") else "is no git checkout"
        raise UserError(
            f"the image is tagged with the git commit, and {root} {why}. "
            f"Commit and build, or give --image {environment.image}:TAG."
        )
    return f"{environment.image}:{commit}"


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


def _tag(reference: str) -> str | None:
    """The tag of ``reference``; what follows a colon before the last slash is a port."""
    found = _TAG.search(reference.rpartition("/")[2])
    return found[1] if found else None


def _is_registry(host: str) -> bool:
    """Whether the first part of a reference is an address; `localhost/` alone marks an image of this machine."""
    return "." in host or ":" in host


def _codes(answer: Any) -> set[str]:
    """The error codes of a registry's answer; none where it is no such answer."""
    try:
        return {str(error["code"]) for error in json.loads(answer.data)["errors"]}
    except (ValueError, KeyError, TypeError):
        return set()
