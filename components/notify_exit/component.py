"""``notify_exit``: how the run ended, to MLflow and a webhook, by the step ``notify``. An exit handler."""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify_exit(
    *,
    pipeline: str,
    status: dsl.PipelineTaskFinalStatus,
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Report how the run ended, whether it succeeded or failed."""
    from raregrade.kubeflow import task_io
    from raregrade.steps.notify import notify

    notify(task_io.outcome(pipeline, status), tracking=task_io.tracking(tracking_uri, experiment))
