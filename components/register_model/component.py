"""``register_model``: what a comparison recommends into the model registry, by the step ``register``.

Never taken from the cache. Without a champion the baseline of the comparison stands in.

Tags: registry, gate
"""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register_model(
    *,
    section: dict,
    comparison: dsl.Input[dsl.Artifact],
    models: dsl.Input[list[dsl.Model]],
    dataset: dsl.Input[dsl.Dataset],
    registration: dsl.Output[dsl.Artifact],
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Register what the comparison recommends if it passes the gate; a refusal is a result, not a failure.

    Args:
        section: The sections `gate`, `alarms` and `register` of params.yaml.
        comparison: The comparison that recommends a model.
        models: The models of all losses and seeds.
        dataset: The prepared dataset they were trained on.
        tracking_uri: MLflow tracking URI of the registry.
        experiment: MLflow experiment.

    Returns:
        registration: registered.json: the version, or why it was refused.
    """
    from pathlib import Path

    from raregrade.config import RegisterSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.register import register

    register(
        task_io.section_from_argument(RegisterSection, section),
        Path(comparison.path),
        [Path(model.path) for model in models],
        Path(dataset.path),
        Path(registration.path) / "registered.json",
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    task_io.describe_registration(registration)
