"""Settings of one cluster, read from ``configs/environments/NAME.yaml``: where it is, and what its tasks get.

Nothing here is secret: a secret is named, and the cluster puts its content into the task.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from raregrade.errors import UserError
from raregrade.schema import ConfigModel
from raregrade.tracking.connection import THROUGH_THE_SERVER

# What a task does most of its time, which decides what it needs: ``data`` reads and decodes images, ``train`` and
# ``evaluate`` run a network, ``light`` reads small files and talks to servers.
Kind = Literal["data", "train", "evaluate", "light"]

_URL = r"^https?://[^\s/]+(/[^\s]*)?$"
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
Name = Annotated[str, Field(pattern=_NAME, max_length=253)]
Cpu = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(Ei|Pi|Ti|Gi|Mi|Ki|E|P|T|G|M|K)?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\s]*[^\s/]$")]

_SPOKEN = {
    "string_pattern_mismatch": "not of the form expected here",
    "extra_forbidden": "unknown key",
    "missing": "missing, and it has no default",
}


class Toleration(ConfigModel):
    """A taint that tasks may ignore, as in a pod."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _says_what_it_tolerates(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists takes no value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("give the key, or operator Exists for all taints")
        return self


class Accelerator(ConfigModel):
    """What the tasks with ``accelerators`` are given, and what it takes to get them to the nodes that have them."""

    type: str = Field("nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    tolerations: list[Toleration] = Field(default_factory=list)
    node_selector: dict[str, str] = Field(default_factory=dict)


class Task(ConfigModel):
    """What one kind of task gets. Limits left out equal the requests; ``shm`` is the size of /dev/shm."""

    cpu: Cpu = "1"
    cpu_limit: Cpu | None = None
    memory: Memory = "2Gi"
    memory_limit: Memory | None = None
    accelerators: int = Field(0, ge=0, le=64)
    shm: Memory | None = None
    timeout_seconds: int = Field(3600, ge=60, le=30 * 24 * 3600)
    retries: int = Field(2, ge=0, le=20)


class Backoff(ConfigModel):
    """Pauses between the tries of a task: the first, what each next one is multiplied by, and the longest, in s."""

    seconds: int = Field(60, ge=0, le=24 * 3600)
    factor: float = Field(2.0, ge=1, le=10)
    max_seconds: int = Field(3600, ge=1, le=24 * 3600)


class Secret(ConfigModel):
    """A Kubernetes secret by its name: which of its keys becomes which environment variable."""

    name: Name
    env: dict[str, Variable] = Field(min_length=1)
    optional: bool = False


class Volume(ConfigModel):
    """A persistent volume claim that exists in the namespace, and where tasks find it."""

    claim: Name
    path: AbsolutePath


class Distributed(ConfigModel):
    """One training over several nodes through Kubeflow Trainer; one node trains inside the pipeline's own task."""

    nodes: int = Field(1, ge=1, le=1024)
    processes_per_node: int | None = Field(None, ge=1, le=64)
    runtime: Name = "torch-distributed"
    restarts: int = Field(3, ge=0, le=100)


class Environment(ConfigModel):
    """One cluster. ``host`` is the API of Kubeflow Pipelines, ``ui`` its pages where they have another address.

    ``raw_data``, ``store`` and ``checkpoints`` are folders on ``volumes``: where the raw images lie, where prepared
    images are kept for later runs, and where an interrupted training leaves what it continues from.
    """

    host: str = Field(pattern=_URL)
    ui: str | None = Field(None, pattern=_URL)
    namespace: Name | None = None
    experiment: str | None = Field(None, min_length=1)
    image: str = Field(pattern=r"^[^\s]+$")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: list[Name] = Field(default_factory=list)
    service_account: Name | None = None
    tracking_uri: str | None = Field(None, pattern=r"^(https?://[^\s]+|none)$")
    env: dict[Variable, str] = Field(default_factory=dict)
    secrets: list[Secret] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    raw_data: AbsolutePath | None = None
    store: AbsolutePath | None = None
    checkpoints: AbsolutePath | None = None
    run_as_user: int | None = Field(None, ge=1)
    accelerator: Accelerator = Accelerator()
    tolerations: list[Toleration] = Field(default_factory=list)
    node_selector: dict[str, str] = Field(default_factory=dict)
    backoff: Backoff = Backoff()
    distributed: Distributed = Distributed()
    tasks: dict[Kind, Task] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _folders_lie_on_volumes(self) -> Environment:
        paths = [volume.path for volume in self.volumes]
        if len(set(paths)) < len(paths):
            raise ValueError("volumes: two of them have the same path")
        for key in ("raw_data", "store", "checkpoints"):
            folder = getattr(self, key)
            if folder is not None and not any(Path(folder).is_relative_to(path) for path in paths):
                raise ValueError(
                    f"{key}: {folder!r} is on none of the volumes ({', '.join(paths) or 'there are none'}), "
                    "so what is written there would vanish with the task"
                )
        if self.distributed.nodes > 1 and self.checkpoints is None:
            raise ValueError(
                "distributed.nodes is more than 1: give checkpoints, a folder on a volume that all nodes mount"
            )
        return self

    @property
    def variables(self) -> dict[str, str]:
        """What every container of the cluster gets: ``env``, which goes before what keeps files on MLflow's way."""
        return THROUGH_THE_SERVER | self.env

    def task(self, kind: Kind) -> Task:
        """What tasks of ``kind`` get; the defaults where the file does not say."""
        return self.tasks.get(kind, Task())


def checkout() -> Path | None:
    """The checkout that this package is imported from; None where it was installed from a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pipelines" / "compare_losses.py").is_file() else None


def environments_folder() -> Path | None:
    """The nearest ``configs/environments`` from the working directory upwards, else that of the checkout."""
    here = Path.cwd()
    roots = [here, *here.parents, *filter(None, [checkout()])]
    return next((found for root in roots if (found := root / "configs" / "environments").is_dir()), None)


def load_environment(name: str) -> Environment:
    """Read ``configs/environments/NAME.yaml``, or the file ``name`` where it ends in .yaml.

    Raises:
        UserError: no such file, not YAML, or a wrong key, type or value; names each.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else _named(name)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise UserError(f"cannot read the environment {path}: {err}. Give another --env.") from err
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected keys and values, such as `host: https://kubeflow.example.org/pipeline`")
    try:
        return Environment.model_validate(raw)
    except ValidationError as err:
        lines = [f"  {_describe(error)}" for error in err.errors()]
        raise UserError("\n".join([f"{path} is wrong:", *dict.fromkeys(lines)])) from err


def _named(name: str) -> Path:
    folder = environments_folder()
    path = folder / f"{name}.yaml" if folder else None
    if path is not None and path.is_file():
        return path
    where = "no folder configs/environments here or above"
    if folder is not None:
        names = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "no environment"
        where = f"{folder} has {names}"
    raise UserError(f"unknown environment {name!r}: {where}. Give the name of one there, or the path of a .yaml file.")


def _describe(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    kind = error["type"]
    message = _SPOKEN.get(kind, error["msg"].removeprefix("Value error, "))
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(), n=1)
        message += f" (did you mean {close[0]!r}?)" if close else ""
    elif kind == "string_pattern_mismatch":
        message += f": {error['ctx']['pattern']}"
    shown = "" if kind in ("extra_forbidden", "missing", "value_error") else f" = {error['input']!r}"
    return f"{key}{shown}: {message}" if key else message


def _known_keys() -> list[str]:
    models = (Environment, Task, Accelerator, Toleration, Backoff, Secret, Volume, Distributed)
    return [name for model in models for name in model.model_fields]
