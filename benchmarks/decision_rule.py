"""Does ``evaluate.decision: best`` choose the right rule from few patients? Simulated, with the product's own choice.

    python benchmarks/decision_rule.py [--runs 400]

Models of ``verdict_worlds`` whose probabilities are flattened and drawn towards the common grades, so that decoding at
the median is worse than argmax, as good, or better in truth (100,000 images). Each run draws validation patients and
chooses the rule by QWK: ``best``, which keeps argmax unless the median leads by more than a standard error, and for
contrast the rule with the higher value. What is gained or lost is measured on the truth.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from verdict_worlds import ORDINAL, Patients, draw_models, draw_patients

from raregrade.config import EvaluateConfig
from raregrade.evaluation.decision_fit import fit_decision
from raregrade.evaluation.metrics import compute_metrics
from raregrade.evaluation.predictions import make_predictions
from raregrade.models.decisions import Decision

ARGMAX, MEDIAN = Decision("argmax"), Decision("median")
# How flat the probabilities are (exponent) and how much the common grades draw them (exponent of the shares).
MODELS = ((0.3, 0.0), (0.5, 1.0), (0.5, 2.0), (0.3, 2.0))
PATIENTS = (40, 80, 200, 600)
BEST = EvaluateConfig(decision="best")


def draw(
    rng: np.random.Generator, patients: int, model: tuple[float, float]
) -> tuple[Patients, npt.NDArray[np.float64]]:
    """A split, and the probabilities [N, K] of a model on it."""
    split = draw_patients(rng, ORDINAL, patients)
    probs = draw_models(rng, ORDINAL, split, [1.0])[0] ** model[0] * np.asarray(ORDINAL.shares) ** model[1]
    return split, probs / probs.sum(axis=1, keepdims=True)


def qwk(split: Patients, probs: npt.NDArray[np.float64], decision: Decision) -> float:
    """Quadratic weighted kappa of ``decision``."""
    return compute_metrics(split.targets, probs, ORDINAL.space, decision)["qwk"]


def chosen(split: Patients, probs: npt.NDArray[np.float64]) -> tuple[Decision, Decision]:
    """The rule that ``best`` takes, and the one with the higher QWK."""
    predictions = make_predictions(
        ORDINAL.space,
        image_id=[f"i{i}" for i in range(len(probs))],
        group_id=split.groups.astype(str),
        split=["val"] * len(probs),
        targets=split.targets,
        probs=probs,
    )
    higher = MEDIAN if qwk(split, probs, MEDIAN) > qwk(split, probs, ARGMAX) else ARGMAX
    return fit_decision(predictions, BEST, ARGMAX, "qwk").decision, higher


def shares(model: tuple[float, float], patients: int, runs: int, seed: int = 0) -> tuple[float, float]:
    """How often ``best`` takes the median, and how often it has the higher value on validation."""
    rng = np.random.default_rng([seed, patients])
    rules = [chosen(*draw(rng, patients, model)) for _ in range(runs)]
    best, higher = (sum(pair[i] == MEDIAN for pair in rules) / runs for i in (0, 1))
    return best, higher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    print(
        "| true lead of the median in QWK | patients | takes the median: best | the higher | gain: best | the higher |"
    )
    print("|---|---|---|---|---|---|")
    for model in MODELS:
        truth = draw(np.random.default_rng(1), 40_000, model)
        lead = qwk(*truth, MEDIAN) - qwk(*truth, ARGMAX)
        for patients in PATIENTS:
            best, higher = shares(model, patients, runs)
            gains = f"{best * lead:+.4f} | {higher * lead:+.4f}"
            print(f"| {lead:+.3f} | {patients} | {best:.2f} | {higher:.2f} | {gains} |", flush=True)


if __name__ == "__main__":
    main()
