"""``train_distributed``: as ``train_model``, but over several nodes, by the step ``train_distributed``."""

from kfp import dsl

from components.image import IMAGE


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
    from raregrade.steps import kubeflow
    from raregrade.steps.train_distributed import train_distributed

    train_distributed(
        kubeflow.from_wire(TrainSection, run["section"]),
        Path(dataset.path),
        Path(model.path),
        seed=int(run["seed"]),
        job=job,
        shared=Path(shared),
        fold=kubeflow.fold(run),
        loss_params=kubeflow.tuned_parameters(run, tuned),
        tracking=kubeflow.tracking(tracking_uri, experiment),
    )
    kubeflow.describe_model(model)
