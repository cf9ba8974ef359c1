"""Step ``train_distributed``: as ``train``, but over several nodes, in a train job of Kubeflow Trainer.

The job runs ``raregrade train`` under torchrun. It cannot see the artifacts of a pipeline, so the dataset's
description (and its images, where they are not in a store), the parameters and the model pass through a folder that
the task and all nodes mount.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from raregrade.atomic import atomic_folder
from raregrade.config import TrainSection
from raregrade.config.tuned import tuned_facts, tuned_section
from raregrade.data.manifest import PreparedDataset
from raregrade.errors import InterruptedRunError, RaregradeError
from raregrade.steps.trainjobs import ClusterUnavailableError, TrainJobs
from raregrade.tracking import Tracking

_POLL_SECONDS = 15.0
_PATIENCE_SECONDS = 600.0
_NAME_LENGTH = 30  # the cluster appends to it, and a pod's name ends at 63


def train_distributed(
    section: TrainSection,
    data: Path,
    out: Path,
    *,
    seed: int,
    job: str,
    shared: Path,
    fold: int | None = None,
    loss_params: Path | None = None,
    tracking: Tracking,
    cluster: TrainJobs | None = None,
    poll_seconds: float = _POLL_SECONDS,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Start a train job, wait for it, and write the model folder ``out``.

    Args:
        section, data, out, seed, fold, loss_params, tracking: as for ``train``.
        job: the train job as JSON, complete but for its name and the arguments of ``raregrade``. As an object,
            Kubeflow would hold its numbers as doubles, which a cluster refuses.
        shared: a folder on a volume that the job's nodes mount at the same path; holds checkpoints too, from which
            the next try goes on.
        cluster: where the job runs; by default the cluster that this process is in.
        poll_seconds: time between two looks at the job.
        report: called with one line at a time.

    Returns:
        The model card.

    Raises:
        UserError: there is no cluster, it refuses the job, or the input is wrong.
        RaregradeError: the job failed.
        InterruptedRunError: SIGINT or SIGTERM arrived; the job was deleted.
    """
    tuned = None
    if loss_params is not None:
        section, tuned = tuned_section(section, loss_params), tuned_facts(loss_params)
    cluster = cluster or TrainJobs.in_cluster()
    name = _job_name(section.loss.name, seed)
    folder = shared / "jobs" / name
    try:
        shutil.copytree(data, folder / "data")
        params = params_of_training(section, PreparedDataset.open(data), folder / "data", seed=seed, tracking=tracking)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        arguments = _arguments(folder, shared, section.loss.name, seed, fold)
        with _interrupts():
            _run_job(cluster, _filled(json.loads(job), name, arguments, tracking.group), poll_seconds, report)
        card: dict[str, Any] = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
        with atomic_folder(out) as target:
            shutil.copytree(folder / "model", target, dirs_exist_ok=True)
            if tuned is not None:  # the nodes train what the study chose as if it stood in params.yaml
                card["tuned"] = tuned
                (target / "model.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except FileNotFoundError as err:
        raise RaregradeError(f"train job {name} ended well but left no model at {folder / 'model'}: {err}") from err
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return card


def params_of_training(
    section: TrainSection, dataset: PreparedDataset, data: Path, *, seed: int, tracking: Tracking
) -> dict[str, Any]:
    """The content of a params.yaml of which ``config.section(params, "train", loss)`` is ``section`` again."""
    space = dataset.label_space.to_json()
    loss = section.loss
    return {
        "data": {
            "source": "folder",
            "path": str(data),
            "task": space["task"],
            "classes": space["classes"],
            "hierarchy": space["edges"],
            "image_size": dataset.image_size,
        },
        "train": section.train.model_dump(mode="json"),
        "losses": {loss.name: {"kind": loss.kind} | loss.params.model_dump(mode="json")},
        "compare": {"losses": [loss.name], "seeds": [seed], "baseline": loss.name},
        "tracking": {"uri": tracking.uri, "experiment": tracking.experiment},
    }


def _arguments(folder: Path, shared: Path, loss: str, seed: int, fold: int | None) -> list[str]:
    named = {
        "--data": folder / "data",
        "--loss": loss,
        "--seed": seed,
        "--out": folder / "model",
        "--params": folder / "params.yaml",
        "--checkpoints": shared,
    } | ({} if fold is None else {"--fold": fold})
    return ["train", *(str(part) for pair in named.items() for part in pair)]


def _filled(job: dict[str, Any], name: str, arguments: list[str], group: str) -> dict[str, Any]:
    """``job`` with its name, what ``raregrade`` is to do, and the run that it belongs to."""
    trainer = job["spec"]["trainer"] | {"args": arguments}
    if group:
        trainer["env"] = [*trainer.get("env", ()), {"name": "RAREGRADE_GROUP", "value": group}]
    return job | {"metadata": job["metadata"] | {"name": name}, "spec": job["spec"] | {"trainer": trainer}}


def _run_job(cluster: TrainJobs, job: dict[str, Any], poll_seconds: float, report: Callable[[str], None]) -> None:
    """Start ``job`` and return when it has ended well. One that failed is left for its logs, any other is deleted."""
    name = job["metadata"]["name"]
    failed = False
    try:
        cluster.create(job)
        report(f"train job {name} started: {job['spec']['trainer'].get('numNodes', 1)} nodes")
        state, message = _wait(cluster, name, poll_seconds, report)
        failed = state == "Failed"
    except KeyboardInterrupt as err:
        raise InterruptedRunError(
            f"interrupted; train job {name} was deleted, and the next try goes on from its checkpoint"
        ) from err
    finally:
        if not failed:
            with suppress(RaregradeError):  # also of a job that was refused, or never seen: then there is none
                cluster.delete(name)
    if failed:
        raise RaregradeError(
            f"train job {name} failed: {message or 'the cluster does not say why'}. Its nodes wrote: "
            f"`kubectl logs -n {cluster.namespace} -l jobset.sigs.k8s.io/jobset-name={name} --prefix --tail=-1`"
        )


def _wait(cluster: TrainJobs, name: str, poll_seconds: float, report: Callable[[str], None]) -> tuple[str, str]:
    last_answer = time.monotonic()
    while True:
        try:
            state, message = cluster.state(name)
            last_answer = time.monotonic()
        except ClusterUnavailableError as err:
            if time.monotonic() - last_answer > _PATIENCE_SECONDS:
                raise
            report(f"{err}; asking again")
            state, message = "Running", ""
        if state != "Running":
            report(f"train job {name}: {state}{f', {message}' if message else ''}")
            return state, message
        time.sleep(poll_seconds)


def _job_name(loss: str, seed: int) -> str:
    """Letters, digits and dashes, another one for each try."""
    base = re.sub(r"[^a-z0-9]+", "-", f"train-{loss}-{seed}".lower())[: _NAME_LENGTH - 9].strip("-")
    return f"{base}-{uuid.uuid4().hex[:8]}"


@contextmanager
def _interrupts() -> Iterator[None]:
    """SIGTERM, which a cluster sends first, becomes KeyboardInterrupt; only the main thread can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
