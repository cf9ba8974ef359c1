"""Which metrics there are for which task, which of them choose, and which are better when lower."""

from __future__ import annotations

from raregrade.labels import TASKS, Task

# The metrics that can select an epoch, a loss or a version, and the tasks each is defined for.
METRIC_TASKS: dict[str, tuple[Task, ...]] = {
    "qwk": ("ordinal",),
    "mae": ("ordinal",),
    "accuracy": ("multiclass", "ordinal"),
    "balanced_accuracy": ("multiclass", "ordinal"),
    "macro_f1": TASKS,
    "auroc": TASKS,
}
LOWER_IS_BETTER = frozenset({"mae", "violation_rate"})
DEFAULT_SELECTION: dict[Task, str] = {"ordinal": "qwk", "multiclass": "macro_f1", "multilabel": "auroc"}
