"""From finished studies to files: best.yaml, the table of trials, the pictures; and to the study's run in MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from raregrade import __version__
from raregrade.atomic import atomic_folder
from raregrade.config.metrics import LOWER_IS_BETTER
from raregrade.config.tuned import BEST_FILE, BEST_SCHEMA, with_values
from raregrade.config.tuning import TRAIN_PREFIX
from raregrade.tuning.plan import BASELINE, DEFAULT, TUNED, TunePlan
from raregrade.tuning.storage import SharedStorage, open_storage
from raregrade.tuning.study import StudyPlan, best_trials, counts
from raregrade.tuning.verdict import RULE, Comparison, compare, sentence
from raregrade.tuning.warm_start import PER_STUDY
from raregrade.tuning.workers import open_log

TRIALS_FILE = "trials.csv"
FIGURES = "figures"


def write_result(plan: TunePlan, out: Path) -> dict[str, Any]:
    """Write the folder ``out`` from the finished studies of ``plan`` and return the content of best.yaml."""
    shared = open_storage(plan.storage)
    searches = {name: _load(shared, study) for name, study in _searches(plan).items()}
    best = {name: best_trials(study)[0] for name, study in searches.items()}
    arms = plan.confirmations(best["search"].params, best[BASELINE].params if BASELINE in best else None)
    confirmed = {name: _load(shared, arm) for name, arm in arms.items()}
    result = _best(plan, searches, best, {name: _values(study) for name, study in confirmed.items()})
    trials = _table(plan, searches, confirmed)
    with atomic_folder(out) as folder:
        text = yaml.safe_dump(result, sort_keys=False, allow_unicode=True, width=120)
        (folder / BEST_FILE).write_text(text, encoding="utf-8")
        trials.to_csv(folder / TRIALS_FILE, index=False)
        _draw(plan, trials, folder / FIGURES)
    _log(shared, plan, result, out)
    return result


def _searches(plan: TunePlan) -> dict[str, StudyPlan]:
    return {"search": plan.search, **({BASELINE: plan.baseline} if plan.baseline is not None else {})}


def _load(shared: SharedStorage, study: StudyPlan) -> optuna.Study:
    return optuna.load_study(study_name=study.name, storage=shared.storage)


def _values(study: optuna.Study) -> dict[int, float | None]:
    """The objective by number of the fresh seed; None where the training diverged."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    values = {int(t.user_attrs["unit"]): float(t.value) if t.state == TrialState.COMPLETE else None for t in trials}
    return dict(sorted(values.items()))


def _best(
    plan: TunePlan,
    searches: Mapping[str, optuna.Study],
    best: Mapping[str, FrozenTrial],
    values: Mapping[str, dict[int, float | None]],
) -> dict[str, Any]:
    lower = plan.section.objective in LOWER_IS_BETTER
    by_default = compare(values[TUNED], values[DEFAULT], lower_is_better=lower)
    by_baseline = compare(values[TUNED], values[BASELINE], lower_is_better=lower) if BASELINE in values else None
    chosen = TUNED if by_default.better else DEFAULT
    kept = dict(best["search"].params) if chosen == TUNED else dict(plan.default)
    section = with_values(plan.search.section, kept)
    loss = plan.section.loss
    baseline = None if plan.baseline is None else plan.baseline.section.loss.name
    return {
        "schema": BEST_SCHEMA,
        "loss": loss.name,
        "kind": loss.kind,
        "better": by_default.better and (by_baseline is None or by_baseline.better),
        "chosen": chosen,
        "verdict": sentence(loss.name, baseline, by_default, by_baseline, plan.section.objective),
        "objective": f"val_{plan.section.objective}",
        "params": section.loss.params.model_dump(mode="json"),
        "train": _train_values(kept, chosen),
        "trial": _trial(best["search"]),
        "study": _study(plan.search, searches["search"]),
        "baseline": None
        if plan.baseline is None
        else {
            "loss": baseline,
            "trial": _trial(best[BASELINE]),
            "study": _study(plan.baseline, searches[BASELINE]),
        },
        "confirmation": _confirmation(plan, values, by_default, by_baseline),
        "top": [
            {"values": dict(t.params), "value": float(t.value)} for t in best_trials(searches["search"])[:PER_STUDY]
        ],
        "dataset": plan.identity.content_hash,
        "raregrade_version": __version__,
    }


def _train_values(kept: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    """Training parameters to set beside the loss's."""
    if chosen != TUNED:
        return {}
    return {name.removeprefix(TRAIN_PREFIX): v for name, v in kept.items() if name.startswith(TRAIN_PREFIX)}


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    return {"number": trial.number, "value": float(trial.value), "values": dict(trial.params)}


def _study(plan: StudyPlan, study: optuna.Study) -> dict[str, Any]:
    found = counts(study)
    epochs = plan.section.train.epochs
    spent = sum(_epochs(trial, epochs) for trial in study.get_trials(deepcopy=False))
    return {
        "name": plan.name,
        "trials": found.finished,
        "complete": found.complete,
        "pruned": found.pruned,
        "repeats": len(plan.units),
        "epochs": spent,
        "epochs_without_pruning": found.finished * len(plan.units) * epochs,
    }


def _epochs(trial: FrozenTrial, epochs: int) -> int:
    """Epochs that ``trial`` trained and reported; those of a trial that died are its successor's."""
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return 0
    repeats = [v for k, v in trial.user_attrs.items() if k.startswith("repeat_")]
    finished = sum(int(repeat["epochs"]) for repeat in repeats)
    return finished if repeats else sum(1 for step in trial.intermediate_values if step <= epochs)


def _confirmation(
    plan: TunePlan,
    values: Mapping[str, dict[int, float | None]],
    by_default: Comparison,
    by_baseline: Comparison | None,
) -> dict[str, Any]:
    arms = plan.confirmations(plan.default, None)[DEFAULT].units
    found: dict[str, Any] = {"rule": RULE, "seeds": [unit.seed for unit in arms]}
    if plan.section.tune.over == "folds":
        found["folds"] = [unit.fold for unit in arms]
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
        _row(role, trial, plan.section.train.epochs)
        for role, study in (*searches.items(), *((f"confirm_{name}", study) for name, study in confirmed.items()))
        for trial in study.get_trials(deepcopy=False)
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    fixed = [name for name in names if not name.startswith(("params_", "repeat_"))]
    return pd.DataFrame(rows, columns=[*fixed, *(n for n in names if n not in fixed)])


def _row(role: str, trial: FrozenTrial, epochs: int) -> dict[str, Any]:
    repeats = {k: v for k, v in trial.user_attrs.items() if k.startswith("repeat_")}
    last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else math.nan
    return {
        "role": role,
        "number": trial.number,
        "state": trial.state.name,
        "value": float(trial.value) if trial.value is not None else last,
        "source": trial.user_attrs.get("source", "" if role.startswith("confirm") else "sampler"),
        "epochs": _epochs(trial, epochs),
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
    files = [out / BEST_FILE, out / TRIALS_FILE, out / FIGURES]
    open_log(shared, plan).finish(result["verdict"], params, metrics, files)
