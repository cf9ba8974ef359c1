"""``read_champion``: what a retraining starts from, read from the registry, by the step ``champion``.

Never taken from the cache: it reads an alias. The items of `Output` are what `train_model` takes as `run`. Fails
where there is a champion and `store` does not hold its dataset: its test patients could not be told from the
others.

Tags: registry, retraining
"""

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
    """Read the champion's recipe, splits and model; without a champion, the recipe of the parameters.

    Args:
        default: The section `train` of params.yaml for the loss to train while there is no champion.
        compare: The section `compare` of params.yaml: seeds and confidence are used.
        register: The section `register` of params.yaml, which names the registered model.
        store: Folder that holds the champion's prepared dataset.
        tracking_uri: MLflow tracking URI of the registry.
        experiment: MLflow experiment.

    Returns:
        champion_model: The champion's model folder; empty where there is none.
        comparison: The section `compare` for what is trained now.
        previous: The champion's prepared dataset, whose groups keep their split; empty without a champion.
        Output: Loss, seed and section `train` of each training.
    """
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
