"""Each task in a container of its own, through Docker or podman, held as tightly as a cluster holds it.

The root of a container is read-only and it has no privileges. It sees the folders that the run is about,
under the same paths, and the network of this machine, so that a server on it is reached by the same
address. kfp's own function asks the engine to remove a container as soon as it ends, and takes one that
is gone for one that succeeded; here a container is removed after its exit code is known.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import DeviceRequest
from kfp import local
from kfp.local import docker_task_handler

from raregrade import __file__ as package_file
from raregrade import __version__
from raregrade.errors import RaregradeError, UserError
from raregrade.kubeflow.local_run import LocalRun, Report, RunTask, run_pipeline
from raregrade.kubeflow.source_digest import source_digest
from raregrade.tracking.connection import absolute_uri, sqlite_path

VERSION_LABEL = "org.opencontainers.image.version"
REVISION_LABEL = "org.opencontainers.image.revision"
SOURCE_LABEL = "raregrade.source"
RUN_LABEL = "raregrade.run"

# Long enough for a training to end its step and save a checkpoint.
_GRACE_SECONDS = 60
_SHARED_MEMORY = "2g"
_ANSWER_SECONDS = 10
# What a task needs of this process's environment: threads, the way into tracking servers, object stores and databases,
# and whom to tell at the end.
_PASSED_ON = (
    "OMP_NUM_THREADS",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD",
    "PGPASSWORD",
    "RAREGRADE_WEBHOOK_URL",
    "RAREGRADE_WEBHOOK_SECRET",
)
_START_AN_ENGINE = (
    "Start Docker, or podman's service (`systemctl --user start podman.socket`, or `podman system service --time=0`), "
    "and set DOCKER_HOST where its socket is not in a usual place, such as DOCKER_HOST=unix:///run/podman/podman.sock."
)
_LOST = (DockerException, requests.exceptions.RequestException, OSError)


def run_in_containers(
    pipeline: Any,
    arguments: dict[str, Any],
    *,
    image: str,
    root: Path,
    group: str,
    checkpoints: Path,
    report: Report,
) -> LocalRun:
    """``run_pipeline`` in containers of ``image``, all of them.

    Every argument that is an absolute path, or an sqlite database, has its folder mounted: ``raw_data``
    read-only, the others for writing, made where they are missing.

    Raises:
        UserError: no engine answers, or it does not have the image, or the image is of another version.
    """
    address = find_engine()
    client = docker.DockerClient(base_url=address, timeout=_ANSWER_SECONDS)
    try:
        note = check_image(client, image)
        settings = container_settings(client.info()) | {"image": image, "labels": {RUN_LABEL: group}}
    finally:
        client.close()
    if note:
        report(note)
    arguments = at_absolute_paths(arguments)
    mounts = mounts_of(arguments) | {str(folder.resolve()): "rw" for folder in (checkpoints, root)}
    launcher = _Containers(address, settings | {"volumes": _volumes(mounts)})
    return run_pipeline(pipeline, arguments, launcher, root=root, group=group, checkpoints=checkpoints, report=report)


def find_engine() -> str:
    """The address of an engine that answers: DOCKER_HOST alone where it is set, else the usual sockets.

    Raises:
        UserError: none answers.
    """
    wanted = os.environ.get("DOCKER_HOST", "")
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    usual = [
        Path("/var/run/docker.sock"),
        Path(runtime, "docker.sock"),
        Path.home() / ".docker/run/docker.sock",
        Path(runtime, "podman/podman.sock"),
        Path("/run/podman/podman.sock"),
    ]
    candidates = [wanted] if wanted else [f"unix://{path}" for path in usual if path.exists()]
    for address in candidates:
        try:
            client = docker.DockerClient(base_url=address, timeout=_ANSWER_SECONDS)
            with contextlib.closing(client):
                client.ping()
        except _LOST:
            continue
        return address
    asked = f"nobody answers at DOCKER_HOST={wanted}" if wanted else "no container engine answers on this machine"
    raise UserError(f"--runner docker: {asked}. {_START_AN_ENGINE}")


def check_image(client: docker.DockerClient, image: str) -> str:
    """A line to show where ``image`` holds other sources than this raregrade; empty where it holds the same.

    Raises:
        UserError: the engine does not have the image, or it is of another version, or not raregrade's at all.
    """
    build = "Run `make image` in a checkout of raregrade"
    try:
        labels = client.images.get(image).labels
    except ImageNotFound as err:
        get_it = build if image.startswith("localhost/") else f"Run `docker pull {image}` (or `podman pull`)"
        raise UserError(f"--runner docker: the container engine has no image {image}. {get_it} first.") from err
    version = labels.get(VERSION_LABEL)
    if SOURCE_LABEL not in labels:
        raise UserError(f"--runner docker: {image} is not an image of raregrade. {build}, or name one that is.")
    if version != __version__:
        raise UserError(
            f"--runner docker: the image {image} holds raregrade {version}, and this is {__version__}. {build}, "
            "or install the version of the image."
        )
    if labels[SOURCE_LABEL] == source_digest(Path(package_file).parent):
        return ""
    return (
        f"note: {image} was built from other sources than those here (commit {labels.get(REVISION_LABEL)}); "
        "its numbers may differ. `make image` builds it anew."
    )


def at_absolute_paths(arguments: dict[str, Any]) -> dict[str, Any]:
    """``arguments`` with the databases and the study's file under absolute paths: a task works elsewhere."""
    changed = {name: absolute_uri(value) if isinstance(value, str) else value for name, value in arguments.items()}
    if study := _study_url(arguments):
        changed["storage"] = arguments["storage"] | {"url": study}
    return changed


def mounts_of(arguments: dict[str, Any]) -> dict[str, str]:
    """The folders that tasks reach by the pipeline's arguments, each with ``ro`` or ``rw``; makes those to write to.

    Raises:
        UserError: the raw data are not there.
    """
    mounts = {}
    for name, value in (arguments | {"storage": _study_url(arguments)}).items():
        if not isinstance(value, str) or not value:
            continue
        file = sqlite_path(value) or (Path(value) if name == "storage" else None)
        path = file.parent if file else Path(value)
        if not path.is_absolute():
            continue
        if name == "raw_data":
            if not path.exists():
                raise UserError(f"there are no raw data at {path}")
            mounts[str(path)] = "ro"
        else:
            path.mkdir(parents=True, exist_ok=True)
            mounts[str(path)] = "rw"
    return mounts


def _study_url(arguments: dict[str, Any]) -> str:
    """Where a study is kept, a file by its absolute path; empty for a pipeline without one."""
    url = str(arguments.get("storage", {}).get("url", ""))
    return absolute_uri(url) if "://" in url or not url else str(Path(url).absolute())


def _volumes(mounts: dict[str, str]) -> list[str]:
    """In the form of the engine, the real folder under the path by which the task knows it."""
    for path in mounts:
        Path(path).mkdir(parents=True, exist_ok=True)
    return [f"{Path(path).resolve()}:{path}:{mode}" for path, mode in mounts.items()]


def container_settings(info: dict[str, Any]) -> dict[str, Any]:
    """What every container of a run is created with, on the engine that says ``info`` about itself."""
    security = info.get("SecurityOptions") or []
    # Without privileges of its own an engine maps root to the one who runs it, and everyone else to nobody's files.
    user = "0:0" if any("rootless" in option for option in security) else f"{os.getuid()}:{os.getgid()}"
    settings: dict[str, Any] = {
        "user": user,
        "network_mode": "host",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": _SHARED_MEMORY,
        "tmpfs": {"/tmp": "mode=1777"},  # noqa: S108 - the container's own
    }
    if any("selinux" in option for option in security):
        settings["security_opt"].append("label=disable")  # else the folders would have to be labelled anew
    if "nvidia" in (info.get("Runtimes") or {}):
        settings["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return settings


class _Containers:
    """Starts tasks in containers."""

    def __init__(self, address: str, settings: dict[str, Any]) -> None:
        self._address = address
        self._settings = settings

    @contextlib.contextmanager
    def taking_over(self, run: RunTask) -> Iterator[local.DockerRunner]:
        def run_docker_container(*_: Any, command: list[str], **settings: Any) -> int:
            return run(command, settings.get("environment") or {})

        own, host = docker_task_handler.run_docker_container, os.environ.get("DOCKER_HOST")
        docker_task_handler.run_docker_container = run_docker_container
        os.environ["DOCKER_HOST"] = self._address  # kfp opens a connection of its own for each task
        try:
            yield local.DockerRunner()
        finally:
            docker_task_handler.run_docker_container = own
            if host is None:
                del os.environ["DOCKER_HOST"]
            else:
                os.environ["DOCKER_HOST"] = host

    def start(self, command: list[str], environment: dict[str, str]) -> _Container:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        settings = self._settings | {"command": in_place_of_the_shell(command), "environment": passed_on | environment}
        return _Container(self._address, settings)


class _Container:
    """A task in a container, with a connection of its own to the engine."""

    def __init__(self, address: str, settings: dict[str, Any]) -> None:
        self._address = address
        self._client = docker.DockerClient(base_url=address)
        self._stopper: threading.Thread | None = None
        try:
            self._container = self._client.containers.create(**settings)
            try:
                # Attached before it starts: podman's log, followed, loses the last words of a container that ends soon.
                self._output = self._container.attach(stream=True, demux=True)
                self._container.start()
            except BaseException:
                self._container.remove(force=True)
                raise
        except _LOST as err:
            self._client.close()
            reason = err.explanation if isinstance(err, APIError) else err
            raise RaregradeError(f"the engine did not start its container: {reason}") from err

    def lines(self) -> Iterator[str]:
        decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(2)]
        rests = ["", ""]  # of standard output and of standard error, which meet in the middle of a line
        try:
            for chunks in self._output:
                for which, chunk in enumerate(chunks):
                    text = rests[which] + decoders[which].decode(chunk or b"")
                    *whole, rests[which] = text.split("\n")
                    yield from whole
        except _LOST as err:
            raise RaregradeError(f"lost sight of its container: {err}") from err
        yield from filter(None, rests)

    def wait(self) -> int:
        try:
            return int(self._container.wait()["StatusCode"])
        except _LOST as err:
            raise RaregradeError(f"lost sight of its container: {err}") from err

    def stop(self) -> None:
        """In a thread with a connection of its own: the handler may have interrupted a request on the other."""
        self._stopper = threading.Thread(target=self._stop, daemon=True)
        self._stopper.start()

    def close(self) -> None:
        try:
            if self._stopper is not None:
                self._stopper.join()
        finally:
            with contextlib.suppress(*_LOST):
                self._container.remove(force=True)
            self._client.close()

    def _stop(self) -> None:
        """SIGTERM, then SIGKILL where that is not enough."""
        client = docker.DockerClient(base_url=self._address, timeout=_GRACE_SECONDS + _ANSWER_SECONDS)
        with contextlib.closing(client), contextlib.suppress(*_LOST):
            client.api.stop(self._container.id, timeout=_GRACE_SECONDS)


def in_place_of_the_shell(command: list[str]) -> list[str]:
    """kfp's command with its Python in the place of the shell around it, which would keep signals to itself."""
    return [part.replace("_KFP_RUNTIME=true python3 -m", "_KFP_RUNTIME=true exec python3 -m") for part in command]
