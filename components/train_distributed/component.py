"""``train_distributed``: as ``train_model``, but over several nodes, by the step ``train_distributed``."""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_distributed(
    *,
    run: dict,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    job: str,
    shared: str,
    tuned: dsl.Input[dsl.Artifact] = None,
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Train with one loss and one seed over several nodes, in a train job of Kubeflow Trainer."""
    from pathlib import Path

    from raregrade.config import TrainSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.train_distributed import train_distributed

    train_distributed(
        task_io.section_from_argument(TrainSection, run["section"]),
        Path(dataset.path),
        Path(model.path),
        seed=int(run["seed"]),
        job=job,
        shared=Path(shared),
        fold=task_io.fold(run),
        loss_params=task_io.tuned_parameters(run, tuned),
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    task_io.describe_model(model)
