"""``read_champion``: what a retraining starts from, read from the registry, by the step ``champion``."""

from kfp import dsl

from raregrade.kubeflow.images import IMAGE


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
    from raregrade.kubeflow import task_io
    from raregrade.steps.champion import champion

    return task_io.describe_recipe(
        champion(
            task_io.section_from_argument(TrainSection, default),
            task_io.section_from_argument(CompareSection, compare),
            task_io.section_from_argument(RegisterSection, register).register_.name,
            Path(champion_model.path),
            store=task_io.optional_path(store),
            tracking=task_io.tracking(tracking_uri, experiment),
        ),
        champion_model,
        comparison,
        previous,
    )
