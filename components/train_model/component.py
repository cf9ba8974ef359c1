"""``train_model``: a prepared dataset to a model folder, by the step ``train``."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_model(
    *,
    run: dict,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Train with one loss and one seed."""
    from pathlib import Path

    from raregrade.config import TrainSection
    from raregrade.steps import kubeflow
    from raregrade.steps.train import train

    train(
        kubeflow.from_wire(TrainSection, run["section"]),
        Path(dataset.path),
        Path(model.path),
        seed=int(run["seed"]),
        tracking=kubeflow.tracking(tracking_uri, experiment),
        checkpoints=kubeflow.checkpoints(),
    )
    kubeflow.describe_model(model)
