"""``promote_model``: a registered version to champion, through the gate, by the step ``promote``.

Never taken from the cache. The champion may have changed since the registration, and it is measured on the same
dataset as its successor.

Tags: registry, gate, promotion
"""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


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
    """Make the registered version champion if it passes the gate once more; a refusal is a result, not a failure.

    Args:
        section: The sections `gate`, `alarms` and `register` of params.yaml.
        registration: What register_model decided.
        dataset: The prepared dataset on which the version is compared with the champion.
        tracking_uri: MLflow tracking URI of the registry.
        experiment: MLflow experiment.

    Returns:
        promotion: promoted.json: version, what was champion before, and what the gate says.
    """
    from pathlib import Path

    from raregrade.config import RegisterSection
    from raregrade.kubeflow import task_io
    from raregrade.steps.promote import promote

    promote(
        task_io.section_from_argument(RegisterSection, section),
        Path(registration.path) / "registered.json",
        Path(dataset.path),
        Path(promotion.path) / "promoted.json",
        tracking=task_io.tracking(tracking_uri, experiment),
    )
    task_io.describe_promotion(promotion)
