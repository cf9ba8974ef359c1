"""From finished studies to files, and to the study's run in MLflow.

``best.yaml`` says what to train with and why, ``baseline.yaml`` the same of the baseline that was tuned beside it (of a
loss that is the baseline it is the same file again), ``trials.csv`` has the trials, ``figures`` the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from raregrade import __version__
from raregrade.atomic import atomic_folder
from raregrade.config import TrainSection
from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.config.tuned import BASELINE_FILE, BEST_FILE, BEST_SCHEMA, with_values
from raregrade.config.tuning import TRAIN_PREFIX
from raregrade.tuning.plan import BASELINE, BASELINE_DEFAULT, DEFAULT, TUNED, TunePlan
from raregrade.tuning.storage import SharedStorage, open_storage
from raregrade.tuning.study import StudyPlan, best_trials, counts
from raregrade.tuning.verdict import Comparison, Folds, Values, compare, rule, sentence
from raregrade.tuning.warm_start import PER_STUDY
from raregrade.tuning.workers import open_log

SEARCH = "search"
TRIALS_FILE = "trials.csv"
FIGURES = "figures"


def write_result(plan: TunePlan, out: Path) -> dict[str, Any]:
    """Write the folder ``out`` from the finished studies of ``plan`` and return the content of best.yaml."""
    shared = open_storage(plan.storage)
    searches = {role: _load(shared, study) for role, study in _searches(plan).items()}
    best = {role: best_trials(study, plan.search.trials)[0] for role, study in searches.items()}
    arms = plan.confirmations(best[SEARCH].params, best[BASELINE].params if BASELINE in best else None)
    confirmed = {name: _load(shared, arm) for name, arm in arms.items()}
    values = {name: _values(study, len(plan.confirm_units)) for name, study in confirmed.items()}
    outcomes = {role: _outcome(plan, role, searches[role], best[role], values) for role in searches}
    result = _best(plan, outcomes, values)
    baseline = outcomes.get(BASELINE)
    files = {BEST_FILE: result, BASELINE_FILE: result if baseline is None else _of_baseline(plan, baseline, values)}
    trials = _table(plan, searches, confirmed)
    with atomic_folder(out) as folder:
        for name, content in files.items():
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
            (folder / name).write_text(text, encoding="utf-8")
        trials.to_csv(folder / TRIALS_FILE, index=False)
        _draw(plan, trials, folder / FIGURES)
    _log(shared, plan, result, out)
    return result


def _searches(plan: TunePlan) -> dict[str, StudyPlan]:
    return {SEARCH: plan.search, **({BASELINE: plan.baseline} if plan.baseline is not None else {})}


def _load(shared: SharedStorage, study: StudyPlan) -> optuna.Study:
    return optuna.load_study(study_name=study.name, storage=shared.storage)


def _values(study: optuna.Study, seeds: int) -> dict[int, float | None]:
    """The objective by number of the fresh seed, of the first ``seeds``; None where the training failed.

    An earlier command may have asked for more.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    values = {int(t.user_attrs["unit"]): float(t.value) if t.state == TrialState.COMPLETE else None for t in trials}
    return {seed: values[seed] for seed in range(seeds)}


@dataclass(frozen=True)
class _Outcome:
    """What a search has come to.

    Attributes:
        comparison: the best trial against the settings of params.yaml.
        chosen: ``tuned`` where it is better than these, else ``default``.
        arm: the name of the confirmation of what was chosen.
        section: what to train.
        train: the training parameters that were searched or fixed; empty where the settings are kept.
        trial, study: as best.yaml holds them.
        top: the best trials.
    """

    comparison: Comparison
    chosen: str
    arm: str
    section: TrainSection
    train: dict[str, Any]
    trial: dict[str, Any]
    study: dict[str, Any]
    top: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The part of best.yaml that is trained with."""
        return {
            "params": self.section.loss.params.model_dump(mode="json"),
            "train": self.train,
            "trial": self.trial,
            "study": self.study,
        }


def _outcome(
    plan: TunePlan, role: str, study: optuna.Study, best: FrozenTrial, values: Mapping[str, Values]
) -> _Outcome:
    """What the search ``role`` has come to; its settings are kept unless the best trial's are shown to be better."""
    search = _searches(plan)[role]
    default, tuned = (DEFAULT, TUNED) if role == SEARCH else (BASELINE_DEFAULT, BASELINE)
    fixed = plan.fixed if role == SEARCH else plan.fixed_of_baseline
    comparison = _compare(plan, values[tuned], values[default])
    kept = {**fixed, **best.params} if comparison.better else {}
    plain = plan.section.loss if role == SEARCH else search.section.loss
    return _Outcome(
        comparison=comparison,
        chosen=TUNED if comparison.better else DEFAULT,
        arm=tuned if comparison.better else default,
        section=with_values(TrainSection(train=plan.section.train, loss=plain), kept),
        train={name.removeprefix(TRAIN_PREFIX): v for name, v in kept.items() if name.startswith(TRAIN_PREFIX)},
        trial={"number": best.number, "value": float(best.value), "values": dict(best.params)},
        study=_study(search, study),
        top=[{"values": dict(t.params), "value": float(t.value)} for t in best_trials(study)[:PER_STUDY]],
    )


def _compare(plan: TunePlan, candidate: Values, reference: Values) -> Comparison:
    lower = plan.section.objective in LOWER_IS_BETTER
    return compare(candidate, reference, lower_is_better=lower, folds=_folds(plan))


def _folds(plan: TunePlan) -> Folds | None:
    if not plan.held_out:
        return None
    return Folds([unit.fold for unit in plan.confirm_units if unit.fold is not None], plan.held_out)


def _best(plan: TunePlan, outcomes: Mapping[str, _Outcome], values: Mapping[str, Values]) -> dict[str, Any]:
    """The content of best.yaml."""
    outcome, baseline = outcomes[SEARCH], outcomes.get(BASELINE)
    by_baseline = None if baseline is None else _compare(plan, values[TUNED], values[baseline.arm])
    loss = plan.section.loss
    name = None if plan.baseline is None else plan.baseline.section.loss.name
    return {
        "schema": BEST_SCHEMA,
        "loss": loss.name,
        "kind": loss.kind,
        "better": outcome.comparison.better and (by_baseline is None or by_baseline.better),
        "chosen": outcome.chosen,
        "verdict": _sentence(plan, loss.name, outcome.comparison, name, by_baseline),
        "objective": f"val_{plan.section.objective}",
        **outcome.to_dict(),
        "baseline": None
        if baseline is None
        else {"loss": name, "chosen": baseline.chosen, "trial": baseline.trial, "study": baseline.study},
        "confirmation": _confirmation(plan, values, outcome.comparison, by_baseline),
        "top": outcome.top,
        "dataset": plan.identity.content_hash,
        "raregrade_version": __version__,
    }


def _of_baseline(plan: TunePlan, baseline: _Outcome, values: Mapping[str, Values]) -> dict[str, Any]:
    """The content of baseline.yaml: as a study of the baseline itself would have ended."""
    loss = baseline.section.loss
    arms = {DEFAULT: values[BASELINE_DEFAULT], TUNED: values[BASELINE]}
    return {
        "schema": BEST_SCHEMA,
        "loss": loss.name,
        "kind": loss.kind,
        "better": baseline.comparison.better,
        "chosen": baseline.chosen,
        "verdict": _sentence(plan, loss.name, baseline.comparison, None, None),
        "objective": f"val_{plan.section.objective}",
        **baseline.to_dict(),
        "baseline": None,
        "confirmation": _confirmation(plan, arms, baseline.comparison, None),
        "top": baseline.top,
        "dataset": plan.identity.content_hash,
        "raregrade_version": __version__,
    }


def _sentence(
    plan: TunePlan, loss: str, comparison: Comparison, baseline: str | None, by_baseline: Comparison | None
) -> str:
    metric = plan.section.objective
    return sentence(loss, baseline, comparison, by_baseline, metric, folds=bool(plan.held_out))


def _study(plan: StudyPlan, study: optuna.Study) -> dict[str, Any]:
    found = counts(study)
    epochs = plan.section.train.epochs
    spent = sum(_epochs(trial) for trial in study.get_trials(deepcopy=False))
    return {
        "name": plan.name,
        "trials": found.finished,
        "complete": found.complete,
        "pruned": found.pruned,
        "repeats": len(plan.units),
        "epochs": spent,
        "epochs_without_pruning": found.finished * len(plan.units) * epochs,
    }


def _epochs(trial: FrozenTrial) -> int:
    """Epochs that ``trial`` trained; those of a trial that died are its successor's."""
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return 0
    finished = sum(int(v["epochs"]) for k, v in trial.user_attrs.items() if k.startswith("repeat_"))
    return finished + int(trial.user_attrs.get("unfinished_epochs", 0))


def _confirmation(
    plan: TunePlan,
    values: Mapping[str, Values],
    by_default: Comparison,
    by_baseline: Comparison | None,
) -> dict[str, Any]:
    units = plan.confirm_units
    found: dict[str, Any] = {"rule": rule(_folds(plan)), "seeds": [unit.seed for unit in units]}
    if plan.held_out:
        found["folds"] = [unit.fold for unit in units]
    for name, arm in values.items():
        known = [value for value in arm.values() if value is not None]
        found[name] = {"mean": math.fsum(known) / len(known) if known else None, "values": list(arm.values())}
    found["against_default"] = by_default.to_dict()
    if by_baseline is not None:
        found["against_baseline"] = by_baseline.to_dict()
    return found


def _table(plan: TunePlan, searches: Mapping[str, optuna.Study], confirmed: Mapping[str, optuna.Study]) -> pd.DataFrame:
    """One row a trial of every study; ``role``: search, baseline, confirm_default, confirm_tuned, …."""
    rows = [
        _row(role, trial)
        for role, study in (*searches.items(), *((f"confirm_{name}", study) for name, study in confirmed.items()))
        for trial in study.get_trials(deepcopy=False)
        if int(trial.user_attrs.get("unit", 0)) < len(plan.confirm_units)
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    fixed = [name for name in names if not name.startswith(("params_", "repeat_"))]
    return pd.DataFrame(rows, columns=[*fixed, *(n for n in names if n not in fixed)])


def _row(role: str, trial: FrozenTrial) -> dict[str, Any]:
    repeats = {k: v for k, v in trial.user_attrs.items() if k.startswith("repeat_")}
    last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else math.nan
    return {
        "role": role,
        "number": trial.number,
        "state": trial.state.name,
        "value": float(trial.value) if trial.value is not None else last,
        "source": trial.user_attrs.get("source", "" if role.startswith("confirm") else "sampler"),
        "epochs": _epochs(trial),
        "seconds": round(sum(float(repeat["seconds"]) for repeat in repeats.values()), 1),
        "reason": trial.user_attrs.get("ended", ""),
        "retry_of": trial.user_attrs.get("retry_of"),
        **{f"params_{name}": value for name, value in trial.params.items()},
        **{name: repeat["value"] for name, repeat in sorted(repeats.items())},
    }


def _draw(plan: TunePlan, trials: pd.DataFrame, folder: Path) -> None:
    from raregrade.tuning.figures import write_figures  # noqa: PLC0415 - matplotlib is slow to import

    folder.mkdir()
    write_figures(
        trials[trials["role"] == "search"],
        plan.search.spaces,
        folder,
        objective=f"val_{plan.section.objective}",
        direction=plan.search.direction,
    )


def _log(shared: SharedStorage, plan: TunePlan, result: Mapping[str, Any], out: Path) -> None:
    comparison = result["confirmation"]["against_default"]
    metrics = {
        "best_trial": result["trial"]["value"],
        "confirmed_difference": comparison["difference"],
        "confirmed_standard_error": comparison["standard_error"],
        "epochs": result["study"]["epochs"],
        "trials": result["study"]["trials"],
        "pruned": result["study"]["pruned"],
    }
    params = {
        "loss": result["loss"],
        "objective": result["objective"],
        "study": result["study"]["name"],
        "chosen": result["chosen"],
        "better": result["better"],
        "params": result["params"],
        "train": result["train"],
    }
    files = [out / BEST_FILE, out / BASELINE_FILE, out / TRIALS_FILE, out / FIGURES]
    open_log(shared, plan).finish(result["verdict"], params, metrics, files)
