"""What every task of a pipeline is given on a cluster, in one place: ``apply_environment``.

Nothing of it means anything to kfp.local, which leaves it out without a word.
"""

from __future__ import annotations

from kfp import dsl, kubernetes

from raregrade.kubeflow.environments import Environment, Kind, Task, Toleration
from raregrade.kubeflow.task_io import CHECKPOINTS_VARIABLE, GROUP_VARIABLE

_SHM = "dshm"


def apply_environment(task: dsl.PipelineTask, kind: Kind, environment: Environment | None) -> dsl.PipelineTask:
    """Give ``task`` what tasks of ``kind`` get in ``environment``, and return it.

    Args:
        task: of a component with an image.
        kind: ``data``, ``train``, ``evaluate`` or ``light``.
        environment: None compiles a file that belongs to no cluster: the task gets the id of its run and nothing else.
    """
    # As an input the run's id would change with every run, and no task would ever be taken from the cache.
    kubernetes.use_field_path_as_env(task, GROUP_VARIABLE, "metadata.labels['pipeline/runid']")
    if environment is None:
        return task
    settings = environment.task(kind)
    _give_resources(task, settings, environment)
    _choose_nodes(task, settings, environment)
    _set_up_container(task, kind, environment)
    set_timeout_and_retries(task, settings, environment)
    return task


def _give_resources(task: dsl.PipelineTask, settings: Task, environment: Environment) -> None:
    task.set_cpu_request(settings.cpu).set_cpu_limit(settings.cpu_limit or settings.cpu)
    task.set_memory_request(settings.memory).set_memory_limit(settings.memory_limit or settings.memory)
    if settings.accelerators:
        task.set_accelerator_type(environment.accelerator.type).set_accelerator_limit(settings.accelerators)
    if settings.shm:  # a container's own is 64 MiB, and torch's loader passes batches through it
        kubernetes.empty_dir_mount(task, _SHM, "/dev/shm", medium="Memory", size_limit=settings.shm)  # noqa: S108


def _choose_nodes(task: dsl.PipelineTask, settings: Task, environment: Environment) -> None:
    on_accelerator = settings.accelerators > 0
    tolerations = [*environment.tolerations, *(environment.accelerator.tolerations if on_accelerator else ())]
    for toleration in tolerations:
        _tolerate(task, toleration)
    labels = environment.node_selector | (environment.accelerator.node_selector if on_accelerator else {})
    for key, value in labels.items():
        kubernetes.add_node_selector(task, key, value)


def _tolerate(task: dsl.PipelineTask, toleration: Toleration) -> None:
    kubernetes.add_toleration(
        task, key=toleration.key, operator=toleration.operator, value=toleration.value, effect=toleration.effect
    )


def _set_up_container(task: dsl.PipelineTask, kind: Kind, environment: Environment) -> None:
    """Image, account, volumes, variables and secrets."""
    kubernetes.set_security_context(task, run_as_user=environment.run_as_user, run_as_non_root=True)
    if environment.image_pull_policy:
        kubernetes.set_image_pull_policy(task, environment.image_pull_policy)
    if environment.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, environment.image_pull_secrets)
    for volume in environment.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path)
    for name, value in environment.variables.items():
        task.set_env_variable(name, value)
    if kind == "train" and environment.checkpoints:
        task.set_env_variable(CHECKPOINTS_VARIABLE, environment.checkpoints)
    for secret in environment.secrets:
        kubernetes.use_secret_as_env(task, secret.name, secret.env, optional=secret.optional)


def set_timeout_and_retries(task: dsl.PipelineTask, settings: Task, environment: Environment) -> None:
    """End a task that hangs, and try one again that failed.

    Kubeflow retries whatever the exit code was: an interrupted training (75) goes on from its checkpoint, a wrong
    argument fails once more.
    """
    kubernetes.set_timeout(task, settings.timeout_seconds)
    if settings.retries:
        task.set_retry(
            num_retries=settings.retries,
            backoff_duration=f"{environment.backoff.seconds}s",
            backoff_factor=environment.backoff.factor,
            backoff_max_duration=f"{environment.backoff.max_seconds}s",
        )
