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
        found.append(f"Listed for reference and not a candidate to win: {', '.join(external)} (external predictions).")
    if left_out:
        names = ", ".join(f"{c.loss}/{c.model}" for c in left_out)
        found.append(f"Reports left out, because compare.losses and compare.seeds do not name them: {names}.")
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
        return f"the study of {loss} did not find its settings better"
    if _study(candidates, baseline) is None and loss != baseline + TUNED_SUFFIX:
        return f"{loss} was given {study.get('trials', 'many')} trials of tuning, and {baseline} none"
    return ""


def _on_folds(members: Sequence[Candidate]) -> list[str]:
    if members[0].fold is None:
        return []
    return [
        "Cross-validation: a metric on validation is the mean over folds, each judged by the models that did not train "
        "on it, and its test is Nadeau and Bengio's, which allows for folds that share training images. On the test "
        "split every model counts by itself; models of one loss share most of their training images, so the luck of "
        "which patients one trains on is only partly in these intervals."
    ]


def _on_settings(members: Sequence[Candidate]) -> list[str]:
    # Values that a study chose are the loss's own.
    settings = [c.report.get("train") for c in members if c.report.get("train") and not c.report.get("tuned")]
    if all(s == settings[0] for s in settings):
        return []
    return ["The models were trained with different training settings, so a difference is not the loss's alone."]


def _on_tuning(candidates: Candidates, config: CompareConfig) -> list[str]:
    """A tuned loss beside an untuned baseline was given more trials; a study that found nothing better is said so."""
    tuned = {loss: study for loss in candidates if (study := _study(candidates, loss)) is not None}
    found = []
    if tuned and config.baseline not in tuned:
        found.append(
            f"{', '.join(tuned)}: tuned, and compared with {config.baseline} as it stands in the settings. A fair "
            f"comparison gives the baseline as many trials: set compare.baseline to {config.baseline + TUNED_SUFFIX}."
        )
    for loss, study in tuned.items():
        if study.get("chosen") == "default":
            found.append(f"{loss}: its study kept the settings of params.yaml, so this is {loss} as it stands there.")
        elif not study.get("better"):
            found.append(f"{loss}: its study did not find settings that are better beyond doubt.")
    if tuned:
        found.append("Studies saw the validation split, so tuned losses look better there than they are.")
    return found


def _study(candidates: Candidates, loss: str) -> Mapping[str, object] | None:
    study: Mapping[str, object] | None = candidates[loss][0].report.get("tuned")
    return study or None
