"""``notify_exit``: how the run ended, to MLflow and a webhook, by the step ``notify``. An exit handler."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify_exit(
    *,
    pipeline: str,
    status: dsl.PipelineTaskFinalStatus,
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Report how the run ended, whether it succeeded or failed."""
    from raregrade.steps import kubeflow
    from raregrade.steps.notify import notify

    notify(kubeflow.outcome(pipeline, status), tracking=kubeflow.tracking(tracking_uri, experiment))
