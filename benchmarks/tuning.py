"""What a study of loss parameters costs, beside a full grid and random search; and its overhead.

    python benchmarks/tuning.py [--check]             # replay studies on the recorded table
    python benchmarks/tuning.py overhead [--check]
    python benchmarks/tuning.py record                # train what the table lacks

``tuning_curves.csv`` holds learning curves of a small network on the phantom: CDW-CE with powers 1 to 10, LMF with
4 x 4 values of alpha and beta, each with several seeds. A replay runs raregrade's own study, from ``make_plan`` to
``run_trial``, with its defaults and the losses of params.yaml. Only ``fit`` is replaced, by a look at the table: what
the study suggests becomes the nearest setting of the grid (on the scale that is searched), and every epoch that it asks
for is counted. The seeds that a study trains with are drawn anew for each study from the recorded ones.

Printed are the epochs until the study's best trial is good, as a ratio to those of the full grid with as many seeds a
setting as a trial has. Good is a setting within one standard error of the grid's best: both means are over all recorded
seeds, which no single study sees, and the error is that of the best setting over as many seeds as a trial has. The last
column takes the spread of seeds pooled over all settings instead: that of one setting over few seeds is a guess.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tuning_overhead import measure_overhead
from tuning_record import TASKS, record
from tuning_replay import replay_all

TABLE = Path(__file__).with_name("tuning_curves.csv")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("replay", "record", "overhead"), default="replay")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--loss", choices=tuple(TASKS), action="append", help="record: of this loss alone")
    parser.add_argument("--studies", type=int, default=20, help="replay: studies whose median is taken")
    parser.add_argument("--trials", type=int, default=100, help="overhead: trials per row of the table")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is broken")
    options = parser.parse_args(arguments)
    if options.command == "record":
        record(options.table, tuple(options.loss or TASKS))
        return 0
    if options.command == "overhead":
        holds = measure_overhead(options.trials)
    else:
        holds = replay_all(options.table, options.studies)
    return 1 if options.check and not holds else 0


if __name__ == "__main__":
    sys.exit(main())
