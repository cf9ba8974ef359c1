"""``promote_model``: a registered version to champion, through the gate, by the step ``promote``."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote_model(
    *,
    section: dict,
    registration: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    promotion: dsl.Output[dsl.Artifact],
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> None:
    """Make the registered version champion if it passes the gate once more; a refusal is a result, not a failure."""
    from pathlib import Path

    from raregrade.config import RegisterSection
    from raregrade.steps import kubeflow
    from raregrade.steps.promote import promote

    promote(
        kubeflow.from_wire(RegisterSection, section),
        Path(registration.path) / "registered.json",
        Path(dataset.path),
        Path(promotion.path) / "promoted.json",
        tracking=kubeflow.tracking(tracking_uri, experiment),
    )
    kubeflow.describe_promotion(promotion)
