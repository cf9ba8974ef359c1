"""The pipeline ``tune_loss``: tune one loss with several workers, and compare what they find with what one has.

The workers share a study by its storage alone: a database for workers on several nodes, a journal file in a folder
that all of them see for workers on one. What they find stands against the loss as it is in the parameters and against
the baseline, tuned with as many trials by the same study, with the seeds of the comparison; the winner is registered if
it passes the gate.
"""

from typing import Any
from urllib.parse import urlsplit

from kfp import dsl

from raregrade.config import Params, section
from raregrade.config.tuned import BASELINE_FILE, BEST_FILE
from raregrade.config.tuning import TUNED_SUFFIX, baseline_kind, untuned_name
from raregrade.errors import UserError
from raregrade.kubeflow.components.collect_study.component import collect_study
from raregrade.kubeflow.components.tune_worker.component import tune_worker
from raregrade.kubeflow.environments import Environment
from raregrade.kubeflow.pipelines.tasks import (
    RawData,
    Tasks,
    compare_argument,
    data_arguments,
    log_arguments,
    sections,
)
from raregrade.kubeflow.task_io import section_to_argument


def build(environment: Environment | None) -> Any:
    """The pipeline for the tasks of ``environment``, or for no cluster in particular where that is None."""

    @dsl.pipeline(
        name="tune-loss",
        description="Tune a loss with workers that share a study, and compare what they find with what one has.",
    )
    def tune_loss(  # noqa: PLR0917 - kfp calls it by position
        workers: list[dict],
        tune: dict,
        storage: dict,
        runs: list[dict],
        prepare: dict,
        evaluate: dict,
        compare: dict,
        register: dict,
        raw_data: str,
        data_repo: str = "",
        data_revision: str = "",
        store: str = "",
        tracking_uri: str = "none",
        experiment: str = "raregrade",
    ) -> None:
        """See ``arguments`` for what each argument holds."""
        tasks = Tasks("tune_loss", environment, tracking_uri, experiment)
        with tasks.exit_handler():
            dataset = tasks.dataset(RawData(raw_data, data_repo, data_revision, store), prepare)
            with dsl.ParallelFor(items=workers, name="workers") as worker:
                # The study is in the storage, not in an output: from the cache would come a worker that does nothing.
                worked = tasks.add(
                    tune_worker, "train", cache=False, worker=worker, section=tune, storage=storage, dataset=dataset
                )
            collected = tasks.add(
                collect_study,
                "train",
                cache=False,
                section=tune,
                storage=storage,
                dataset=dataset,
                workers=dsl.Collected(worked.outputs["metrics"]),
            )
            with dsl.ParallelFor(items=runs, name="losses-and-seeds") as run:
                model, report = tasks.train_and_evaluate(run, evaluate, dataset, tuned=collected.outputs["study"])
            tasks.compare_and_register(compare, register, dataset, reports=report, models=model)

    return tune_loss


def arguments(
    params: Params, *, raw_data: str, data_revision: str | None = None, store: str = "", data_repo: str = ""
) -> dict[str, Any]:
    """Every argument of ``tune_loss``: of ``tune.losses`` the baseline and one more loss, or the baseline alone.

    Raises:
        UserError: other losses, a baseline that studies do not tune, or a storage whose address holds a password.
    """
    loss = _the_loss(params)
    storage = params.tune.study_storage()
    if urlsplit(storage.url).password:
        raise UserError(
            "tune.storage holds a password, and the arguments of a pipeline are there for all to read. Leave it out of "
            "the address and give it to the tasks as the variable PGPASSWORD, on a cluster from a secret."
        )
    losses = list(dict.fromkeys([untuned_name(params.compare.baseline), loss]))
    after_study = [(name, BEST_FILE if name == loss else BASELINE_FILE) for name in losses]
    trained = [(name, "") for name in losses] + after_study
    runs = [
        {"loss": name, "seed": seed, "section": section_to_argument(section(params, "train", name))}
        | ({"tuned": file} if file else {})
        for name, file in trained
        for seed in params.compare.seeds
    ]
    return {
        "workers": [{"number": number} for number in range(params.tune.workers)],
        "tune": section_to_argument(section(params, "tune", loss)),
        "storage": section_to_argument(storage),
        "runs": runs,
        **sections(params, "prepare", "evaluate"),
        "compare": compare_argument(
            params, [*losses, *(name + TUNED_SUFFIX for name in losses)], params.compare.baseline
        ),
        **sections(params, "register"),
        **data_arguments(raw_data, data_repo, data_revision, store),
        **log_arguments(params),
    }


def _the_loss(params: Params) -> str:
    baseline = untuned_name(params.compare.baseline)
    others = [name for name in params.tune.losses if name != baseline]
    if not params.tune.losses or len(others) > 1:
        named = ", ".join(params.tune.losses) or "none"
        tuned = dict.fromkeys([baseline, next((n for n in params.compare.losses if n != baseline), baseline)])
        raise UserError(
            f"tune_loss tunes one loss beside the baseline, tune.losses names {named}. Give one, such as "
            f"--set 'tune.losses=[{', '.join(tuned)}]' --set compare.baseline={baseline}{TUNED_SUFFIX}; a run of the "
            "pipeline each for more."
        )
    kind = params.losses[baseline].kind
    if kind != baseline_kind(params.data.task):
        raise UserError(
            f"tune_loss compares with the baseline that every study tunes, {baseline_kind(params.data.task)}; "
            f"compare.baseline names {baseline}, of kind {kind}. Set it, or tune both with `dvc repro`."
        )
    return others[0] if others else baseline
