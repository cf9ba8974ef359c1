"""``read_champion``: what a retraining starts from, read from the registry, by the step ``champion``."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def read_champion(
    *,
    default: dict,
    compare: dict,
    register: dict,
    champion_model: dsl.Output[dsl.Model],
    comparison: dsl.OutputPath(dict),
    previous: dsl.OutputPath(str),
    store: str = "",
    tracking_uri: str = "none",
    experiment: str = "raregrade",
) -> list[dict]:
    """Read the champion's recipe, splits and model; without a champion, the recipe of the parameters."""
    from pathlib import Path

    from raregrade.config import CompareSection, RegisterSection, TrainSection
    from raregrade.steps import kubeflow
    from raregrade.steps.champion import champion

    return kubeflow.describe_recipe(
        champion(
            kubeflow.from_wire(TrainSection, default),
            kubeflow.from_wire(CompareSection, compare),
            kubeflow.from_wire(RegisterSection, register).register_.name,
            Path(champion_model.path),
            store=kubeflow.optional_path(store),
            tracking=kubeflow.tracking(tracking_uri, experiment),
        ),
        champion_model,
        comparison,
        previous,
    )
