"""How metrics and numbers are written for people, in tables, pages and figures."""

from __future__ import annotations

from raregrade.config.metrics import LOWER_IS_BETTER

TITLES = {
    "qwk": "QWK",
    "mae": "MAE",
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "auroc_weighted": "weighted AUROC",
    "violation_rate": "violation rate",
}
MEANINGS = {
    "qwk": "Quadratic weighted kappa: agreement beyond chance; two grades off weighs four times one grade off.",
    "mae": "Mean absolute error in grades; lower is better.",
    "macro_f1": "F1 averaged over classes, rare ones counting as much as common ones.",
    "balanced_accuracy": "Recall averaged over classes.",
    "accuracy": "Share of images that are given the right class.",
    "auroc": "Area under the ROC curve of one class against the rest, averaged over classes.",
    "auroc_weighted": "Area under the ROC curve of each label, averaged with the number of positives as weight.",
    "violation_rate": "Share of (parent, child) pairs with the child predicted and the parent not; lower is better.",
}


def metric_name(name: str) -> str:
    """``val_qwk`` → ``val QWK``, ``f1_mild`` → ``F1 mild``; other names stay as they are."""
    split, _, rest = name.partition("_")
    if split in ("val", "test"):
        return f"{split} {metric_name(rest)}"
    if name in TITLES:
        return TITLES[name]
    for prefix, title in (("f1_", "F1 "), ("auroc_", "AUROC ")):
        if name.startswith(prefix):
            return title + name.removeprefix(prefix)
    return name


def lower_is_better(name: str) -> bool:
    """Whether a smaller value of the metric (with or without its split) is the better one."""
    metric = name.removeprefix("val_").removeprefix("test_")
    return metric in LOWER_IS_BETTER


def signed(value: float) -> str:
    """``+0.031`` or ``-0.031``; a difference that rounds to zero has no sign."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def bounds(low: float | None, high: float | None) -> str:
    """``[0.701, 0.782]``, or nothing where there is no interval."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
