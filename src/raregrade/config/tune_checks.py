"""What of the section ``tune`` contradicts the rest of params.yaml, or could never act: said before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from raregrade.config.search_space import space_problems
from raregrade.config.tuning import (
    TUNED_SUFFIX,
    StudyConfig,
    TuneConfig,
    judged_epochs,
    untuned_name,
    uses_hyperband,
)
from raregrade.labels import Task

if TYPE_CHECKING:
    from raregrade.config.model import LossChoice
    from raregrade.config.training import TrainConfig


def study_problems(config: StudyConfig, train: TrainConfig, loss: LossChoice) -> list[str]:
    """Settings of a study of ``loss`` that could never act, one message each, which begins with the key to change."""
    problems = []
    judged = judged_epochs(train, loss)
    of_stage = "" if judged == train.epochs else f" in the last stage of {loss.name}, which alone counts"
    if config.pruner == "hyperband" and not judged:
        problems.append(
            f"tune.pruner = hyperband: {loss.name} is judged once, after its last epoch, so there are no epochs to "
            "compare. Set tune.pruner=none"
        )
    elif uses_hyperband(config) and 0 < judged < config.min_epochs:
        problems.append(
            f"tune.min_epochs = {config.min_epochs}: there {'is' if judged == 1 else 'are'} {judged} "
            f"epoch{'' if judged == 1 else 's'}{of_stage}, so Hyperband could never "
            f"stop a trial. Set tune.min_epochs={judged}{' or less' if judged > 1 else ''}, or tune.pruner=none"
        )
    needed = _repeats_for_wilcoxon(config.wilcoxon_p)
    if config.pruner == "wilcoxon" and config.repeats < needed:
        problems.append(
            f"tune.repeats = {config.repeats}: before the last repeat no p-value of Wilcoxon's test can fall below "
            f"tune.wilcoxon_p = {config.wilcoxon_p:g}, so no trial could be stopped. Set tune.repeats={needed} or "
            "more, or tune.pruner=hyperband"
        )
    return problems


def tune_problems(
    config: TuneConfig,
    losses: Mapping[str, LossChoice],
    train: TrainConfig,
    task: Task,
    metrics: Sequence[str],
    *,
    baseline: str,
) -> list[str]:
    """What of the section ``tune`` contradicts the rest of params.yaml, one message each.

    Args:
        losses: those that params.yaml defines.
        metrics: the metrics that are defined for ``task``.
        baseline: the loss that ``compare.baseline`` names.
    """
    problems = []
    if config.objective not in ("auto", *metrics):
        problems.append(
            f"tune.objective: {config.objective} is not defined for task {task}; allowed: auto, {', '.join(metrics)}"
        )
    defined = ", ".join(losses) or "none"
    for name in config.losses:
        if name not in losses:
            problems.append(f"tune.losses: {name!r} is not defined under losses; defined: {defined}")
        elif task not in losses[name].params.tasks:
            fits = " or ".join(losses[name].params.tasks)
            problems.append(f"tune.losses: {name} fits task {fits}, but data.task is {task}")
        if name + TUNED_SUFFIX in losses:
            problems.append(f"losses.{name}{TUNED_SUFFIX}: this name is kept for the tuned {name}; choose another name")
    doubles = sorted({name for name in config.losses if config.losses.count(name) > 1})
    if doubles:
        problems.append(f"tune.losses: given more than once: {', '.join(doubles)}")
    problems += _unfair(config, baseline)
    for name in config.losses:
        if name in losses:
            problems += [problem for problem in study_problems(config, train, losses[name]) if problem not in problems]
    for name in config.space:
        if name not in losses and name != "train":
            problems.append(f"tune.space.{name}: not defined under losses; defined: {defined}, and train")
    for name in sorted({*config.space, *config.losses, "train"} & {*losses, "train"}):
        problems += space_problems(config, name, losses, train)
    return problems


def _unfair(config: TuneConfig, baseline: str) -> list[str]:
    """Tuned losses beside a baseline that was given no trials."""
    plain = untuned_name(baseline)
    others = [name for name in config.losses if name != plain]
    if not config.losses or (plain in config.losses and baseline != plain):
        return []
    tuned = f"tune.losses: {', '.join(others or config.losses)} is tuned and compared with {baseline}"
    missing = [] if plain in config.losses else [f"tune.losses=[{', '.join([plain, *config.losses])}]"]
    advice = " and ".join([*missing, f"compare.baseline={plain}{TUNED_SUFFIX}"])
    return [f"{tuned}, which is not: more trials alone make a loss look better. Set {advice}"]


def _repeats_for_wilcoxon(p: float) -> int:
    """The fewest repeats of which all but the last, each worse than the best trial's, have a one-sided p below ``p``.

    The least p of n pairs is 1 / 2^n.
    """
    return next(repeats for repeats in range(2, 1024) if 0.5 ** (repeats - 1) < p)
