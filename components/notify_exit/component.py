"""``notify_exit``: how the run ended, to MLflow and a webhook, by the step ``notify``. An exit handler.

The task of a `dsl.ExitHandler`. It tags the MLflow parent run with `raregrade.pipeline.state`, puts the outcome on
top of its description, and ends it as finished or failed. `state` is `SUCCEEDED`, `FAILED`, `CANCELLED` or
`UNFINISHED`, whatever the backend calls them; a backend that says `RUNNING` here means a run that was terminated,
or in which a task could not start. Where `RAREGRADE_WEBHOOK_URL` is set, it sends an HTTP POST of JSON: `text`,
`pipeline`, `run`, `state`, `error`, `experiment`, `mlflow_run_id`. With `RAREGRADE_WEBHOOK_SECRET`, the header
`X-Raregrade-Signature` is `sha256=` and the hex HMAC-SHA256 of the body. Give both to the task from a secret. A
report that does not arrive is a warning in the log: the run itself has already ended.

Tags: notification, exit-handler
"""

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
    """Report how the run ended, whether it succeeded or failed.

    Args:
        pipeline: Name of the pipeline.
        status: Set by Kubeflow: state, task and error of the tasks before.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.
    """
    from raregrade.kubeflow import task_io
    from raregrade.steps.notify import notify

    notify(task_io.outcome(pipeline, status), tracking=task_io.tracking(tracking_uri, experiment))
