"""How often a retraining that is no better replaces the champion: simulated, judged by the registry's own gate.

    python benchmarks/gate.py [--runs 1000]

Champion and candidates are trainings of one recipe with the luck of training, or of recipes that differ by ``gain``
(``verdict_worlds``). Each month three seeds are trained and the one of median validation QWK is held against the
champion: the rules ``superior`` and ``non_inferior: 0.02`` on test QWK, the alarms, and for contrast the rule that
validation QWK may not fall, which was the gate of the demo before.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from verdict_worlds import RARE, World, draw_models, draw_patients, draw_scales

from raregrade.config import AlarmConfig, GateRule
from raregrade.models.decisions import Decision
from raregrade.registry.gate import evaluate_gate
from raregrade.registry.measured import Images, Measured, alarms_about, held_against

RULES = {
    "val no lower": GateRule(metric="val_qwk", min_absolute_change=0.0),
    "superior": GateRule(metric="test_qwk", superior=True),
    "non-inferior": GateRule(metric="test_qwk", non_inferior=0.02),
}
SEEDS = 3
MONTHS = 12
ARGMAX = Decision("argmax")


@dataclass(frozen=True)
class Row:
    """One row of the table: the patients of each split, the luck of training, how much better the new recipe is."""

    patients: int
    spread: float
    gain: float
    world: World = RARE


ROWS = (
    *(Row(patients, 0.0, 0.0) for patients in (20, 60, 150, 400, 1500)),
    *(Row(patients, spread, 0.0) for spread in (0.05, 0.1) for patients in (60, 400)),
    *(Row(patients, 0.05, gain) for gain in (-0.1, 0.1, 0.2) for patients in (150, 400)),
)


def draw(rng: np.random.Generator, row: Row, candidates: int) -> tuple[list[Measured], np.ndarray]:
    """The champion and ``candidates`` models of a later recipe on the same patients, and the noise of each."""
    scales = np.concatenate(
        [
            draw_scales(rng, 1, row.spread),
            draw_scales(rng, candidates, row.spread, row.gain),
        ]
    )
    images, probs = {}, {}
    for split in ("val", "test"):
        patients = draw_patients(rng, row.world, row.patients)
        images[split] = Images(patients.targets, patients.groups.astype(str))
        probs[split] = draw_models(rng, row.world, patients, scales)
    names = ["the champion", *(f"candidate {i}" for i in range(candidates))]
    models = [
        Measured(name, row.world.space, ARGMAX, images, {split: found[i] for split, found in probs.items()})
        for i, name in enumerate(names)
    ]
    return models, scales


def median_of(models: list[Measured]) -> int:
    """Which of ``models`` has the median validation QWK."""
    return int(np.argsort([m.metrics["val_qwk"] for m in models])[len(models) // 2])


def month(rng: np.random.Generator, row: Row) -> Counter[str]:
    """Which rules one retraining passes, and whether it is better in truth."""
    (champion, *trained), scales = draw(rng, row, SEEDS)
    chosen = median_of(trained)
    candidate = trained[chosen]
    reference = held_against(candidate, champion)
    passed = [name for name, rule in RULES.items() if evaluate_gate([rule], candidate.metrics, reference).passed]
    found = Counter(passed)
    if "superior" in passed and scales[1 + chosen] >= scales[0]:
        found["superior, not better"] += 1
    if alarms_about(candidate, AlarmConfig(), champion):
        found["alarm"] += 1
    return found


def year(rng: np.random.Generator, patients: int) -> bool:
    """Whether any of twelve retrainings that are no better passes ``superior``, all on the same test patients."""
    models, _ = draw(rng, Row(patients, 0.0, 0.0), SEEDS * MONTHS)
    champion, rest = models[0], models[1:]
    for start in range(0, len(rest), SEEDS):
        trained = rest[start : start + SEEDS]
        candidate = trained[median_of(trained)]
        if evaluate_gate([RULES["superior"]], candidate.metrics, held_against(candidate, champion)).passed:
            return True
    return False


def rates(row: Row, runs: int) -> dict[str, float]:
    """Shares of ``runs`` retrainings."""
    rng = np.random.default_rng(35)
    total: Counter[str] = Counter()
    for _ in range(runs):
        total += month(rng, row)
    return {name: total[name] / runs for name in (*RULES, "superior, not better", "alarm")}


def years(patients: int, runs: int) -> float:
    """Share of years in which a retraining that is no better replaces the champion."""
    rng = np.random.default_rng(36)
    return sum(year(rng, patients) for _ in range(runs)) / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    columns = ["superior", "superior, not better", "non-inferior", "alarm", "val no lower"]
    print("| patients | spread | gain | " + " | ".join(columns) + " |")
    print("|" + "---|" * (3 + len(columns)))
    with ProcessPoolExecutor(given.jobs) as pool:
        for row, found in zip(ROWS, pool.map(rates, ROWS, [given.runs] * len(ROWS)), strict=True):
            values = " | ".join(f"{found[name]:.3f}" for name in columns)
            print(f"| {row.patients} | {row.spread:g} | {row.gain:+g} | {values} |", flush=True)
        counts = (150, 400)
        for patients, share in zip(counts, pool.map(years, counts, [given.runs // 4] * len(counts)), strict=True):
            print(f"\nOne of {MONTHS} retrainings on the same {patients} test patients passes: {share:.3f}")


if __name__ == "__main__":
    main()
