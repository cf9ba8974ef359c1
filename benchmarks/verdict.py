"""Can the verdict be trusted: false claims, power and intervals of raregrade's comparison, where the truth is known.

    python benchmarks/verdict.py [--check] [--quick]     # everything below; --check exits 1 if a bar is broken
    python benchmarks/verdict.py record --work FOLDER    # train the 24 seeds of one loss again

Four tables. *No loss is better*: whole studies, from validation's choice to the one test, of losses that are equal.
*One loss is better*: how often the test finds it, beside what an exact t-test with the same degrees of freedom would
find. *Intervals*: how often the interval of each metric of one model covers the truth. *Recorded trainings*: real
trainings of one loss against themselves.

A share over n repetitions is itself uncertain; a bar counts as broken only where the share is beyond it by more than
two standard errors of the share.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import nct, norm
from scipy.stats import t as student
from verdict_intervals import Sample, coverage_all, usual_positives
from verdict_rates import CONFIDENCE, SELECTION, Found, Study, repeat_all
from verdict_recorded import claims_of, read_table, record
from verdict_worlds import MULTILABEL, NOMINAL, ORDINAL, RARE, World, draw_models, draw_patients

from raregrade.evaluation.intervals import FEWEST_POSITIVES, class_of_metric, model_intervals

TABLE = Path(__file__).with_name("verdict_predictions.parquet")
LEVEL = 1 - CONFIDENCE
COVERED = (0.93, 0.97)
POWER_BAR = 0.05
SECONDS_BAR = 5.0
# Metrics that have an interval however rare the rarest class is.
_OF_ALL_IMAGES = {"qwk", "mae", "accuracy", "violation_rate", "auroc_weighted"}

NULL = [
    Study(ORDINAL, 20, (3, 3), (0.05, 0.05)),
    Study(RARE, 60, (3, 3), (0.0, 0.0)),
    Study(ORDINAL, 90, (2, 2), (0.05, 0.05)),
    Study(ORDINAL, 90, (5, 5), (0.1, 0.1)),
    Study(NOMINAL, 90, (3, 3), (0.05, 0.05), losses=4),
    Study(MULTILABEL, 20, (10, 10), (0.05, 0.05)),
    Study(MULTILABEL, 90, (5, 5), (0.02, 0.02), losses=4),
    Study(ORDINAL, 400, (3, 3), (0.0, 0.0), losses=7),
    Study(ORDINAL, 400, (3, 3), (0.1, 0.1), losses=7),
    Study(NOMINAL, 400, (10, 10), (0.05, 0.05)),
    Study(MULTILABEL, 400, (3, 5), (0.05, 0.05)),
    Study(ORDINAL, 400, (2, 10), (0.05, 0.05)),
    Study(ORDINAL, 1500, (3, 3), (0.05, 0.05)),
    Study(NOMINAL, 1500, (5, 5), (0.0, 0.0)),
    Study(MULTILABEL, 1500, (2, 2), (0.1, 0.1)),
    Study(ORDINAL, 400, (3, 3), (0.03, 0.1)),
]
BETTER = [
    Study(ORDINAL, 90, (5, 5), (0.05, 0.05), gain=0.2),
    Study(ORDINAL, 400, (3, 3), (0.05, 0.05), gain=0.15),
    Study(ORDINAL, 400, (5, 5), (0.05, 0.05), gain=0.1),
    Study(ORDINAL, 400, (10, 10), (0.05, 0.05), gain=0.07),
    Study(NOMINAL, 400, (5, 5), (0.03, 0.03), gain=0.1),
    Study(MULTILABEL, 400, (5, 5), (0.05, 0.05), gain=0.1),
    Study(ORDINAL, 1500, (5, 5), (0.02, 0.02), gain=0.05),
]
SAMPLES = [
    Sample(ORDINAL, 20),
    Sample(RARE, 60),
    Sample(RARE, 150),
    Sample(RARE, 400),
    Sample(replace(RARE, noise=0.4), 100),
    Sample(replace(RARE, noise=2.0), 100),
    Sample(replace(RARE, most_images=1), 200),
    Sample(RARE, 1500),
    Sample(NOMINAL, 60),
    Sample(NOMINAL, 300),
    Sample(replace(NOMINAL, noise=0.6), 100),
    Sample(MULTILABEL, 20),
    Sample(MULTILABEL, 60),
    Sample(replace(MULTILABEL, noise=0.5), 60),
    Sample(MULTILABEL, 300),
]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("measure", "record"), default="measure")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is broken")
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions, of the smaller studies")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--table", type=Path, default=TABLE, help="the recorded predictions")
    parser.add_argument("--work", type=Path, help="record: folder for data, models and reports")
    options = parser.parse_args(arguments)
    if options.command == "record":
        if options.work is None:
            parser.error("record needs --work FOLDER, where data, models and reports are kept")
        record(options.work, options.table)
        return 0
    holds = [
        no_loss_is_better(options.quick, options.jobs),
        one_loss_is_better(options.quick, options.jobs),
        intervals(options.quick, options.jobs),
        recorded(options.table, options.quick),
        speed(),
    ]
    return 1 if options.check and not all(holds) else 0


def no_loss_is_better(quick: bool, jobs: int) -> bool:
    """Print how often equal losses are told apart; whether that is at most the level in every row."""
    print("\nNo loss is better: share of studies with a claim, and how often the test rejects at 5 %\n")
    print("| task | patients | seeds | spread | losses | false claims | test rejects | any metric's | mean covered |")
    print("|---|---|---|---|---|---|---|---|---|")
    studies = [s for s in NULL if not quick or s.patients <= 90]
    times = [_times(s, quick) for s in studies]
    holds = True
    for study, found in zip(studies, repeat_all(studies, times, jobs), strict=True):
        claims = float(np.mean([f.claimed is not None for f in found]))
        rejected = {name: _rejected(found, name) for name in found[0].differences}
        own, worst = rejected[SELECTION[study.world.space.task]], max(rejected.values())
        print(
            f"| {_row(study)} | {study.losses} | {claims:.3f} | {own:.3f} | {worst:.3f} | {_covered(found):.3f} |",
            flush=True,
        )
        allowed = LEVEL + 2 * _error(LEVEL, len(found))
        holds &= claims <= allowed and own <= allowed
    return holds


def one_loss_is_better(quick: bool, jobs: int) -> bool:
    """Print how often the better loss is claimed; whether that is what an exact test would do in every row."""
    print("\nOne loss is better: how often the test says so\n")
    print(
        "| task | patients | seeds | spread | difference | its true sd | standard error | claimed | exact t-test | "
        "normal test with known sd | detectable |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    studies = [s for s in BETTER if not quick or s.patients <= 90]
    times = [_times(s, quick) for s in studies]
    holds = True
    for study, found in zip(studies, repeat_all(studies, times, jobs), strict=True):
        differences = [f.differences[SELECTION[study.world.space.task]] for f in found]
        means = np.array([d.mean for d in differences])
        true, sd = float(means.mean()), float(means.std(ddof=1))
        df = float(np.median([d.df for d in differences if d.df is not None]))
        error = float(np.sqrt(np.mean([d.standard_error**2 for d in differences if d.standard_error is not None])))
        claimed = float(np.mean([d.p is not None and d.p <= LEVEL and d.mean > 0 for d in differences]))
        exact = float(nct.sf(student.ppf(1 - LEVEL / 2, df), df, true / sd))
        known = float(norm.sf(norm.ppf(1 - LEVEL / 2) - true / sd))
        least = float(np.median([f.detectable for f in found if f.detectable is not None]))
        print(
            f"| {_row(study)} | {true:.4f} | {sd:.4f} | {error:.4f} | {claimed:.3f} | {exact:.3f} | {known:.3f} | "
            f"{least:.4f} |",
            flush=True,
        )
        holds &= abs(claimed - exact) <= POWER_BAR + 2 * _error(exact, len(found))
    return holds


def intervals(quick: bool, jobs: int) -> bool:
    """Print the range of coverage of each kind of interval; whether none covers too rarely."""
    print(
        f"\nIntervals of one model: coverage of {CONFIDENCE:.0%} intervals, least and most over data sets and classes\n"
    )
    print("| metric | cells | least | most | mean | cells above 0.97 |")
    print("|---|---|---|---|---|---|")
    samples = SAMPLES[:3] if quick else SAMPLES
    times = [_times_of_sample(s, quick) for s in samples]
    cells: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for sample, counts in zip(samples, coverage_all(samples, times, jobs), strict=True):
        patients = usual_positives(sample)
        for name, count in counts.items():
            own = class_of_metric(name, sample.world.space)
            rests_on = min(patients.values()) if own is None else patients[own]
            enough = rests_on >= FEWEST_POSITIVES or name in _OF_ALL_IMAGES
            if enough and count.shown:
                kind = name if own is None else f"{name.removesuffix('_' + own)} of a class"
                cells[kind].append((count.covered / count.shown, count.shown))
    holds = True
    for kind in sorted(cells):
        shares = [share for share, _ in cells[kind]]
        above = sum(share > COVERED[1] + 2 * _error(CONFIDENCE, n) for share, n in cells[kind])
        print(
            f"| {kind} | {len(shares)} | {min(shares):.3f} | {max(shares):.3f} | {np.mean(shares):.3f} | {above} |",
            flush=True,
        )
        holds &= all(share >= COVERED[0] - 2 * _error(CONFIDENCE, n) for share, n in cells[kind])
    return holds


def recorded(table: Path, quick: bool) -> bool:
    """Print how often a loss is told from itself; whether raregrade does so in at most one of twenty comparisons."""
    data = read_table(table)
    print(
        f"\nRecorded trainings: {len(data.probs)} seeds of cross-entropy, {len(data.targets)} test images of "
        f"{len(set(data.groups))} patients; share of comparisons of the loss with itself that claim a difference\n"
    )
    print("| metric | seeds | raregrade | patients alone |")
    print("|---|---|---|---|")
    times = 100 if quick else 1000
    holds = True
    for claims in claims_of(data, (1, 2, 3, 5, 10), times):
        print(f"| {claims.metric} | {claims.seeds} | {claims.raregrade:.3f} | {claims.patients_alone:.3f} |")
        # Sets of seeds overlap between comparisons: no more than 24 / 2S of them are independent.
        holds &= claims.raregrade <= LEVEL + 2 * _error(LEVEL, times)
    return holds


def speed() -> bool:
    """Print the time of all intervals of a model with 1,686 images; whether it is within the bar."""
    world = RARE
    rng = np.random.default_rng(0)
    patients = draw_patients(rng, replace(world, most_images=1), 1686)
    probs = draw_models(rng, world, patients, [1.0])[0]
    model_intervals(patients.targets, probs, patients.groups, world.space)
    start = time.perf_counter()
    model_intervals(patients.targets, probs, patients.groups, world.space)
    seconds = time.perf_counter() - start
    print(f"\nAll intervals of all ordinal metrics of 1,686 images: {seconds:.3f} s (bar {SECONDS_BAR:g} s)")
    return seconds <= SECONDS_BAR


def _row(study: Study) -> str:
    return f"{_task(study.world)} | {study.patients} | {_both(*study.seeds)} | {_both(*study.spread)}"


def _both(baseline: float, other: float) -> str:
    return f"{baseline:g}" if baseline == other else f"{baseline:g} and {other:g}"


def _task(world: World) -> str:
    return {"ordinal": "ordinal", "multiclass": "nominal"}.get(world.space.task, "multilabel")


def _rejected(found: Sequence[Found], name: str) -> float:
    p_values = [f.differences[name].p for f in found if name in f.differences]
    return float(np.mean([p is not None and p <= LEVEL for p in p_values]))


def _covered(found: Sequence[Found]) -> float:
    """Share of intervals of the baseline's mean that hold what that mean is on average over all repetitions."""
    true = np.mean([f.mean for f in found])
    return float(np.mean([f.limits[0] <= true <= f.limits[1] for f in found if f.limits is not None]))


def _times(study: Study, quick: bool) -> int:
    times = 200 if study.patients >= 1000 else 400
    return times // 10 if quick else times


def _times_of_sample(sample: Sample, quick: bool) -> int:
    times = 400 if sample.patients >= 1000 else 800
    return times // 10 if quick else times


def _error(share: float, times: int) -> float:
    return math.sqrt(share * (1 - share) / times)


if __name__ == "__main__":
    sys.exit(main())
