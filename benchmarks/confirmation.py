"""How often a confirmation of tuned parameters calls one of two equal settings better.

    python benchmarks/confirmation.py            # the table
    python benchmarks/confirmation.py --check    # and fail where raregrade's rule lets more than 5 % pass

Patients have a hidden severity, a grade with label noise, and two views of noisy features that are alike in
distribution. One setting is ridge regression on the first view, the other on the second, and both add the luck of a
seed to their weights: neither is better, and the folds share training patients as real ones do. Each dataset is drawn
anew. Judged is the quadratic weighted kappa of the held-out fold, as a study judges it, by the rule that raregrade uses
(``raregrade.tuning.verdict``) and by the paired t-test that takes folds for independent.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raregrade.tuning.verdict import Folds, compare

Floats = npt.NDArray[np.float64]
Grades = npt.NDArray[np.int64]
GRADES, FEATURES = 4, 8
BAR, RUNS = 0.05, 4000
_WEIGHTS = np.subtract.outer(np.arange(GRADES), np.arange(GRADES)) ** 2 / (GRADES - 1) ** 2


@dataclass(frozen=True)
class World:
    """A row of the table.

    Attributes:
        patients: of training and validation together.
        folds: into which they are dealt; 0 keeps one fixed split of 80 to 20.
        confirm: fresh seeds; over folds they take turns.
        luck: standard deviation of what a seed adds to each weight.
        one_view: both settings see the same features, so that only luck tells them apart.
    """

    patients: int
    folds: int
    confirm: int
    luck: float
    one_view: bool = False


WORLDS = [
    World(200, 0, 5, 0.03, one_view=True),
    World(200, 0, 5, 0.03),
    *(World(n, k, c, luck) for n in (100, 300) for k, c in ((3, 6), (5, 5), (5, 10)) for luck in (0.005, 0.03)),
    World(200, 10, 10, 0.01),
    World(200, 2, 6, 0.01),
]


def false_claims(world: World, runs: int, seed: int = 0) -> tuple[float, float]:
    """How often of ``runs`` the second setting is called better, by raregrade's rule and by a paired t-test."""
    rng = np.random.default_rng(seed)
    found = np.zeros(2)
    for _ in range(runs):
        first, second, of_training = _confirmation(rng, world)
        folds = Folds(of_training, 1 / world.folds) if world.folds else None
        for i, rule in enumerate((folds, None)):
            found[i] += compare(second, first, lower_is_better=False, folds=rule).better
    ours, plain = found / runs
    return float(ours), float(plain)


def _confirmation(
    rng: np.random.Generator, world: World
) -> tuple[dict[int, float | None], dict[int, float | None], list[int]]:
    """Values of both settings by number of the seed, and the fold of each."""
    severity = rng.normal(size=world.patients)
    grades = np.digitize(severity + rng.normal(0, 0.3, world.patients), [-0.5, 0.4, 1.2])
    views = [severity[:, None] + rng.normal(0, 2.0, (world.patients, FEATURES)) for _ in range(2)]
    if world.one_view:
        views[1] = views[0]
    parts = world.folds or 5
    fold = rng.permutation(np.arange(world.patients) % parts)
    of_training = [i % parts if world.folds else 0 for i in range(world.confirm)]
    values: list[dict[int, float | None]] = []
    for view in views:
        weights = [_ridge(view[fold != k], grades[fold != k]) for k in range(parts)]
        values.append({})
        for i, k in enumerate(of_training):
            lucky = weights[k] + rng.normal(0, world.luck, FEATURES)
            values[-1][i] = _kappa(grades[fold == k], _predict(view[fold == k], lucky))
    return values[0], values[1], of_training


def _ridge(features: Floats, grades: Grades) -> Floats:
    gram = features.T @ features + 10.0 * np.eye(FEATURES)
    return np.asarray(np.linalg.solve(gram, features.T @ (grades - 1.0)), dtype=np.float64)


def _predict(features: Floats, weights: Floats) -> Grades:
    return np.clip(np.rint(features @ weights + 1.0), 0, GRADES - 1).astype(np.int64)


def _kappa(grades: Grades, predicted: Grades) -> float:
    table = np.bincount(grades * GRADES + predicted, minlength=GRADES**2).reshape(GRADES, GRADES)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    wrong = float((_WEIGHTS * expected).sum())
    return 1.0 - float((_WEIGHTS * table).sum()) / wrong if wrong else 0.0


def main(check: bool) -> int:
    print("| patients | folds | fresh seeds | luck | settings | raregrade | paired t |\n|---|---|---|---|---|---|---|")
    failed = []
    for world in WORLDS:
        ours, plain = false_claims(world, RUNS)
        settings = "the same" if world.one_view else "equally good"
        print(
            f"| {world.patients} | {world.folds or 'one split'} | {world.confirm} | {world.luck} | {settings} "
            f"| {100 * ours:.1f} % | {100 * plain:.1f} % |",
            flush=True,
        )
        # On one split the claim is about its patients: settings that are equally good elsewhere may differ on them.
        if (world.folds or world.one_view) and ours > BAR + 2 * math.sqrt(BAR * (1 - BAR) / RUNS):
            failed.append(world)
    if check and failed:
        print(f"more than {BAR:.0%} pass in {len(failed)} of {len(WORLDS)} rows", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
