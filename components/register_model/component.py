"""``register_model``: what a comparison recommends into the model registry, by the step ``register``."""

from kfp import dsl

from components.image import IMAGE


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
    """Register what the comparison recommends if it passes the gate; a refusal is a result, not a failure."""
    from pathlib import Path

    from raregrade.config import RegisterSection
    from raregrade.steps import kubeflow
    from raregrade.steps.register import register

    register(
        kubeflow.from_wire(RegisterSection, section),
        Path(comparison.path),
        [Path(model.path) for model in models],
        Path(dataset.path),
        Path(registration.path) / "registered.json",
        tracking=kubeflow.tracking(tracking_uri, experiment),
    )
    kubeflow.describe_registration(registration)
