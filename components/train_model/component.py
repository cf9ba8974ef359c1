"""``train_model``: a prepared dataset to a model folder, by the step ``train``."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_model(
    *,
    run: dict,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    tuned: dsl.Input[dsl.Artifact] = None,
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Train with one loss and one seed, on the fixed split or a fold."""
    from pathlib import Path

    from raregrade.config import TrainSection
    from raregrade.steps import kubeflow
    from raregrade.steps.train import train

    train(
        kubeflow.from_wire(TrainSection, run["section"]),
        Path(dataset.path),
        Path(model.path),
        seed=int(run["seed"]),
        fold=kubeflow.fold(run),
        loss_params=kubeflow.tuned_parameters(run, tuned),
        tracking=kubeflow.tracking(tracking_uri, experiment),
        checkpoints=kubeflow.checkpoints(),
    )
    kubeflow.describe_model(model)
