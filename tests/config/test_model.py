"""The checks across keys: losses against the task, metrics against the task, the comparison against the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from raregrade.config import METRIC_TASKS, params_from_dict
from raregrade.errors import ConfigError
from raregrade.labels import TASKS
from raregrade.losses import LOSSES

Change = Callable[[str, Any], dict[str, Any]]


def for_task(task: str, loss: str) -> dict[str, Any]:
    return {
        "data": {"source": "folder", "path": "images", "task": task, "classes": ["a", "b", "c"]},
        "losses": {loss: {}},
        "compare": {"losses": [loss], "seeds": [1], "baseline": loss},
    }


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_accepted_for_the_tasks_it_fits_and_for_no_other(task: str, loss: str) -> None:
    if task in LOSSES[loss].tasks:
        assert params_from_dict(for_task(task, loss)).losses[loss].kind == loss
    else:
        with pytest.raises(ConfigError, match=rf"{loss} fits task .*, but data\.task is {task}"):
            params_from_dict(for_task(task, loss))


def test_a_loss_that_does_not_fit_may_be_defined_if_not_compared(changed: Change) -> None:
    assert "bce" in params_from_dict(changed("losses.bce", {})).losses


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", METRIC_TASKS)
def test_a_selection_metric_is_accepted_for_the_tasks_it_is_defined_for(task: str, metric: str) -> None:
    raw = for_task(task, "bce" if task == "multilabel" else "ce") | {"train": {"selection_metric": metric}}
    if task in METRIC_TASKS[metric]:
        assert params_from_dict(raw).selection_metric == metric
    else:
        with pytest.raises(
            ConfigError, match=rf"train\.selection_metric: {metric} .* task {task}; allowed: .*macro_f1"
        ):
            params_from_dict(raw)


@pytest.mark.parametrize(("task", "metric"), [("ordinal", "qwk"), ("multiclass", "macro_f1"), ("multilabel", "auroc")])
def test_the_selection_metric_defaults_to_the_usual_one_of_the_task(task: str, metric: str) -> None:
    assert params_from_dict(for_task(task, "bce" if task == "multilabel" else "ce")).selection_metric == metric


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("compare.losses", ["ce", "lmf"], "compare.losses: 'lmf' is not defined under losses; defined: ce"),
        ("compare.losses", ["ce", "ce"], "compare.losses: given more than once: ce"),
        ("compare.seeds", [1, 2, 1], "compare.seeds: given more than once: 1"),
        ("compare.baseline", "strong", "compare.baseline: 'strong' is not one of the compared losses (ce, cdw_ce)"),
        ("gate", [{"metric": "test_qwk", "threshold": 0.4}], "threshold and min_absolute_change read val_* metrics"),
        ("gate", [{"metric": "val_qwk"}], "give threshold, min_absolute_change, superior or non_inferior"),
        (
            "gate",
            [{"metric": "val_dice", "threshold": 0}],
            "gate.0.metric: 'val_dice' is not computed for these labels",
        ),
        ("gate", [{"metric": "val_f1_huge", "threshold": 0}], "val_f1_severe"),
        ("data.classes", ["a"], "needs at least 2 classes"),
        ("data.classes", ["a", "b", "a"], "given more than once: a"),
        ("data.hierarchy", [["none", "mild"]], "a hierarchy needs task multilabel"),
        ("data.label_column", ["a", "b", "c"], "task ordinal takes one column"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(changed: Change, key: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        params_from_dict(changed(key, value))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hierarchy", [["a", "b"], ["b", "a"]], "cycle"),
        ("hierarchy", [["a", "x"]], "'x' is not a class"),
        ("hierarchy", [["a"]], "is not a [parent, child] pair"),
        ("label_column", "label", "takes a list of columns"),
        ("label_column", ["l1", "l2"], "2 columns for 3 classes"),
    ],
)
def test_a_hierarchy_or_columns_that_make_no_sense_are_refused(key: str, value: Any, said: str) -> None:
    raw = for_task("multilabel", "bce")
    raw["data"][key] = value
    with pytest.raises(ConfigError) as caught:
        params_from_dict(raw)
    assert said in str(caught.value)


def test_the_gate_may_ask_for_the_f1_of_one_class(changed: Change) -> None:
    rule = params_from_dict(changed("gate", [{"metric": "val_f1_severe", "threshold": 0.2}])).gate[0]
    assert rule.greater_is_better


def test_the_gate_knows_that_a_lower_error_is_better(changed: Change) -> None:
    assert not params_from_dict(changed("gate", [{"metric": "val_mae", "threshold": 0.9}])).gate[0].greater_is_better


def test_parameters_cannot_be_changed_after_they_were_checked(valid: dict[str, Any]) -> None:
    params = params_from_dict(valid)
    with pytest.raises(ValidationError):
        params.train.epochs = -1  # type: ignore[misc]
