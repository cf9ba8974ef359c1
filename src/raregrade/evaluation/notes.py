"""What a reader of a comparison has to know beside its numbers: odd data, unequal settings, tuning, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raregrade.config.evaluation import CompareConfig
from raregrade.config.tuning import TUNED_SUFFIX
from raregrade.evaluation.candidates import Candidate

Candidates = Mapping[str, Sequence[Candidate]]


def data_warnings(members: Sequence[Candidate]) -> list[str]:
    """What was odd about the data or was assumed to read predictions, each once."""
    return list(
        dict.fromkeys(
            text for c in members for text in (*c.report.get("data_warnings", ()), *c.report.get("assumptions", ()))
        )
    )


def notes(candidates: Candidates, left_out: Sequence[Candidate], config: CompareConfig) -> list[str]:
    """What a reader must know to trust the numbers no more than they deserve."""
    members = [c for group in candidates.values() for c in group]
    found = [*_on_folds(members), *_on_settings(members), *_on_tuning(candidates, config)]
    external = [loss for loss in candidates if loss not in config.losses]
    if external:
        found.append(f"Listed for reference only, and cannot win: {', '.join(external)} (external predictions).")
    if left_out:
        names = ", ".join(f"{c.loss}/{c.model}" for c in left_out)
        found.append(f"Reports left out because compare.losses and compare.seeds do not list them: {names}.")
    return found


def objection(candidates: Candidates, loss: str, baseline: str) -> str:
    """Why a difference between ``loss`` and ``baseline`` proves nothing about the loss; empty where it may.

    A study's trials are chances that a baseline without a study did not have, and what a study has not found better is
    not announced as better.
    """
    study = _study(candidates, loss)
    if study is None:
        return ""
    if not study.get("better"):
        return f"the study of {loss} found no better settings"
    if _study(candidates, baseline) is None and loss != baseline + TUNED_SUFFIX:
        return f"{loss} had {study.get('trials', 'many')} tuning trials and {baseline} had none"
    return ""


def _on_folds(members: Sequence[Candidate]) -> list[str]:
    if members[0].fold is None:
        return []
    return [
        "Cross-validation: a validation metric is the mean over folds, each judged by the models that did not train on "
        "it. Its test is Nadeau and Bengio's, which allows for training images shared between folds. On the test split "
        "every model counts separately. Models of one loss share most of their training images, so these intervals "
        "cover only part of the luck of which patients one trains on."
    ]


def _on_settings(members: Sequence[Candidate]) -> list[str]:
    # Values that a study chose are the loss's own.
    settings = [c.report.get("train") for c in members if c.report.get("train") and not c.report.get("tuned")]
    if all(s == settings[0] for s in settings):
        return []
    return ["The models were trained with different settings, so a difference is not due to the loss alone."]


def _on_tuning(candidates: Candidates, config: CompareConfig) -> list[str]:
    """A tuned loss beside an untuned baseline was given more trials; a study that found nothing better is said so."""
    tuned = {loss: study for loss in candidates if (study := _study(candidates, loss)) is not None}
    found = []
    if tuned and config.baseline not in tuned:
        found.append(
            f"{', '.join(tuned)}: tuned, but compared with an untuned {config.baseline}. A fair comparison gives the "
            f"baseline as many trials: set compare.baseline to {config.baseline + TUNED_SUFFIX}."
        )
    for loss, study in tuned.items():
        if study.get("chosen") == "default":
            found.append(f"{loss}: its study kept the settings of params.yaml, so this is the untuned {loss}.")
        elif not study.get("better"):
            found.append(f"{loss}: its study found no settings that are better beyond doubt.")
    if tuned:
        found.append("Studies used the validation split, so tuned losses look better there than they are.")
    return found


def _study(candidates: Candidates, loss: str) -> Mapping[str, object] | None:
    study: Mapping[str, object] | None = candidates[loss][0].report.get("tuned")
    return study or None
