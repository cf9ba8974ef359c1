"""``train_distributed``: as ``train_model``, but over several nodes, by the step ``train_distributed``.

Takes the place of `train_model` where the environment says `distributed: {nodes: N}` with more than one. The task
itself only waits: it starts a `TrainJob` that runs `torchrun … raregrade train`, and hands over the model. Dataset,
parameters and model pass through `shared`. Its account needs the role of `infra/kubernetes/components/train-jobs`.
A job that fails is left in the cluster for its logs.

Tags: training, loss, image-classification, distributed
"""

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
    """Train with one loss and one seed over several nodes, in a train job of Kubeflow Trainer.

    Args:
        run: Loss, seed, the section `train` of params.yaml for that loss, and optionally the fold that validates or
            `tuned: best.yaml` (`baseline.yaml` for the baseline).
        dataset: A prepared dataset.
        job: The TrainJob as JSON, complete but for its name and the arguments of raregrade.
        shared: Folder on a volume that this task and all nodes mount at the same path.
        tuned: What collect_study found; used by the runs that say so.
        tracking_uri: MLflow tracking URI, or none.
        experiment: MLflow experiment.

    Returns:
        model: Weights as safetensors, model.json, history of the epochs.
    """
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
