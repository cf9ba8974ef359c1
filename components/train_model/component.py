"""``train_model``: a prepared dataset to a model folder, by the step ``train``.

An interrupted training goes on from its checkpoint, where `RAREGRADE_CHECKPOINTS` names a folder that outlives the
task. A run that names a file in `tuned` takes its parameters from there, and its loss is then called `LOSS-tuned`.

Tags: training, loss, image-classification
"""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


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
    """Train with one loss and one seed, on the fixed split or a fold.

    Args:
        run: Loss, seed, the section `train` of params.yaml for that loss, and optionally the fold that validates or
            `tuned: best.yaml` (`baseline.yaml` for the baseline).
        dataset: A prepared dataset.
        tuned: What collect_study found; used by the runs that say so.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        model: Weights as safetensors, model.json, history of the epochs.
    """
    from pathlib import Path

    from raregrade.config import TrainSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.train import train

    train(
        task_io.section_from_argument(TrainSection, run["section"]),
        Path(dataset.path),
        Path(model.path),
        seed=int(run["seed"]),
        fold=task_io.fold(run),
        loss_params=task_io.tuned_parameters(run, tuned),
        tracking=task_io.tracking(tracking_uri, experiment),
        checkpoints=task_io.checkpoints(),
    )
    task_io.describe_model(model)
