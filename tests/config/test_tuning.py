"""Search spaces: what a loss declares, what params.yaml makes of it, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from raregrade.config import LossChoice, TrainConfig, params_from_dict, section
from raregrade.config.search_space import TRAIN_SEARCH, baseline_space, default_values, search_space
from raregrade.config.tune_checks import study_problems
from raregrade.config.tuning import StudyConfig, StudyStorage
from raregrade.errors import ConfigError
from raregrade.losses import LOSSES
from raregrade.schema import Choice, FloatRange, IntRange, contains

Change = Callable[[str, Any], dict[str, Any]]


def choice(kind: str, **params: Any) -> LossChoice:
    return LossChoice(name=kind, kind=kind, params=LOSSES[kind](**params))


def space(kind: str, settings: dict[str, Any] | None = None, **params: Any) -> Any:
    config = StudyConfig.model_validate({"space": {} if settings is None else settings})
    return search_space(config, choice(kind, **params), TrainConfig())


@pytest.mark.parametrize("kind", LOSSES)
def test_what_a_loss_declares_lies_within_what_its_parameters_allow(kind: str) -> None:
    model = LOSSES[kind]
    for name, declared in model.SEARCH.items():
        ends = declared.choices if isinstance(declared, Choice) else (declared.low, declared.high)
        for value in ends:
            assert getattr(model.model_validate({name: value}), name) == value
    for paper in model.PAPER:
        model.model_validate(paper)
        assert all(contains(model.SEARCH[name], value) for name, value in paper.items())


def test_the_spaces_of_the_published_losses() -> None:
    lmf = space("lmf").spaces
    assert lmf["alpha"] == lmf["beta"] == FloatRange(low=0.1, high=2.0, log=True)
    assert set(lmf) == {"alpha", "beta", "gamma", "max_margin", "scale"}
    assert space("cdw_ce").spaces == {"power": FloatRange(low=0.5, high=10.0)}
    assert {"metric_weight", "margin"} <= set(space("two_stage").spaces)
    assert set(space("hbce").spaces) == {"penalty", "mode"}
    assert set(space("hbce", penalty="data_driven").spaces) == {"scale", "mode"}


def test_a_parameter_that_changes_nothing_is_not_searched() -> None:
    assert "temperature" not in space("two_stage").spaces
    assert "margin" not in space("two_stage", metric="supcon").spaces
    assert set(space("dlordinal", loss="sord").spaces) == {"alpha"}


def test_the_section_narrows_fixes_and_widens() -> None:
    found = space("lmf", {"lmf": {"alpha": {"high": 1.0}, "gamma": 2.0, "scale": {"low": 0.5}}})
    assert found.spaces["alpha"] == FloatRange(low=0.1, high=1.0, log=True)
    assert found.spaces["scale"] == FloatRange(low=0.5, high=30.0, log=True)
    assert "gamma" not in found.spaces
    assert found.fixed == {"gamma": 2.0}


def test_the_margin_of_cdw_ce_is_searched_where_it_is_asked_for() -> None:
    assert "margin" not in space("cdw_ce").spaces
    found = space("cdw_ce", {"cdw_ce": {"margin": {"low": 0.0, "high": 0.2}}})
    assert found.spaces["margin"] == FloatRange(low=0.0, high=0.2)


def test_training_parameters_join_with_their_own_or_a_given_range() -> None:
    found = space("lmf", {"train": {"lr": {}, "batch_size": {"low": 8, "high": 64}}})
    assert found.spaces["train.lr"] == TRAIN_SEARCH["lr"]
    assert found.spaces["train.batch_size"] == IntRange(low=8, high=64)


def test_a_loss_without_parameters_is_tuned_by_rate_and_decay() -> None:
    assert set(space("ce").spaces) == {"train.lr", "train.weight_decay"}


def test_the_baseline_is_tuned_by_rate_decay_and_what_is_asked_for() -> None:
    config = StudyConfig.model_validate({"space": {"train": {"batch_size": {}}}})
    found = baseline_space(config, choice("ce"), TrainConfig())
    assert set(found.spaces) == {"train.lr", "train.weight_decay", "train.batch_size"}


def test_the_settings_as_they_stand_are_a_point_of_the_space() -> None:
    found = space("lmf", {"train": {"lr": {}}})
    point = default_values(found, choice("lmf", alpha=0.7), TrainConfig(lr=2e-3))
    assert point["alpha"] == 0.7
    assert point["train.lr"] == 2e-3
    assert found.holds(point)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lmf": {"alfa": 1.0}}, r"tune\.space\.lmf\.alfa: unknown parameter; allowed: .*alpha"),
        ({"lmf": {"alpha": {"low": 2.0, "high": 0.5}}}, r"lmf\.alpha: the range from 2 to 0\.5 is inverted"),
        ({"lmf": {"alpha": {"high": 5000.0}}}, r"lmf\.alpha = 5000\.0: input should be less than or equal to 1000"),
        ({"lmf": {"alpha": -1.0}}, r"lmf\.alpha = -1\.0: input should be greater than or equal to 0"),
        ({"lmf": {"head": {"choices": ["round"]}}}, r"lmf\.head = 'round': input should be 'cosine' or 'linear'"),
        ({"lmf": {"head": {}}}, r"lmf\.head: has no range of its own; give low and high, or choices"),
        ({"lmf": {"alpha": {"low": 0.0}}}, r"lmf\.alpha: log needs a range above 0"),
        ({"train": {"epochs": {"low": 1, "high": 5}}}, r"tune\.space\.train\.epochs: unknown parameter; allowed: lr"),
        ({"train": {"batch_size": {"low": 8.5, "high": 64}}}, r"batch_size: takes whole numbers"),
        ({"train": {"warmup_epochs": {"high": 30.0}}}, r"warmup_epochs = 30\.0: train\.warmup_epochs = 30: .*not end"),
        ({"train": {"lr": {"low": 1e-5}}}, r"train\.lr = 1e-05: train\.lr_min = 5e-05: is above train\.lr"),
        ({"train": {"batch_size": {"choices": [32, 30]}}}, r"batch_size = 30: .*doesn't divide into so many equal"),
        (
            {"train": {"batch_size": {"low": 8, "high": 64}}},
            r"sizes that train\.accumulate = 4 does not divide. Give",
        ),
        ({"train": {"batch_size": 30}}, r"tune\.space\.train\.batch_size = 30: train\.accumulate = 4"),
    ],
)
def test_a_wrong_space_is_one_error_that_names_the_key(settings: dict[str, Any], message: str) -> None:
    config = StudyConfig.model_validate({"space": settings})
    with pytest.raises(ConfigError, match=message):
        search_space(config, choice("lmf"), TrainConfig(accumulate=4, lr_min=5e-5))


def test_values_that_the_loss_cannot_train_with_are_refused_with_the_key() -> None:
    with pytest.raises(ConfigError, match=r"tune\.space\.drw\.start reaches 0\.9, .*losses\.drw\.start = 0\.9: "):
        search_space(StudyConfig(), choice("drw"), TrainConfig(epochs=5))
    narrowed = StudyConfig.model_validate({"space": {"drw": {"start": {"high": 0.8}}}})
    assert search_space(narrowed, choice("drw"), TrainConfig(epochs=5)).spaces["start"].high == 0.8
    sizes = StudyConfig.model_validate({"space": {"train": {"batch_size": {"choices": [4, 32]}}}})
    with pytest.raises(ConfigError, match=r"tune\.space\.train\.batch_size reaches 4, .*images_per_class = 4"):
        search_space(sizes, choice("two_stage"), TrainConfig())


def test_an_end_is_checked_beside_what_is_fixed() -> None:
    settings = {"two_stage": {"images_per_class": 2}, "train": {"batch_size": {"choices": [4, 32]}}}
    found = search_space(StudyConfig.model_validate({"space": settings}), choice("two_stage"), TrainConfig())
    assert found.spaces["train.batch_size"] == Choice(choices=(4, 32))


def test_a_fixed_value_takes_what_it_makes_pointless_out_of_the_search() -> None:
    found = space("two_stage", {"two_stage": {"metric": "supcon"}})
    assert set(found.spaces) == {"metric_weight", "temperature"}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("ce", {"min_epochs": 21}, r"tune\.min_epochs = 21: there are 20 epochs, .*Set tune\.min_epochs=20 or less"),
        (
            "two_stage",
            {"min_epochs": 7},
            r"min_epochs = 7: there are 6 epochs in the last stage of two_stage",
        ),
        ("ce", {"pruner": "wilcoxon", "repeats": 4}, r"tune\.repeats = 4: .*wilcoxon_p = 0\.1.*Set tune\.repeats=5 or"),
        ("ce", {"pruner": "wilcoxon", "repeats": 5, "wilcoxon_p": 0.05}, r"Set tune\.repeats=6 or more"),
    ],
)
def test_settings_of_a_study_that_could_never_act_are_refused(
    kind: str, settings: dict[str, Any], message: str
) -> None:
    (problem,) = study_problems(StudyConfig.model_validate(settings), TrainConfig(), choice(kind))
    assert re.search(message, problem)


def test_a_head_that_trains_nothing_leaves_hyperband_nothing_to_compare() -> None:
    loss = choice("two_stage", classifier="tau_norm")
    (problem,) = study_problems(StudyConfig(pruner="hyperband"), TrainConfig(), loss)
    assert problem.startswith("tune.pruner = hyperband: two_stage is judged once")
    assert study_problems(StudyConfig(), TrainConfig(), loss) == []


@pytest.mark.parametrize("settings", [{"min_epochs": 20}, {"pruner": "wilcoxon", "repeats": 5, "min_epochs": 99}])
def test_settings_of_a_study_that_can_act_are_taken(settings: dict[str, Any]) -> None:
    assert study_problems(StudyConfig.model_validate(settings), TrainConfig(), choice("ce")) == []


def test_what_could_never_act_is_refused_when_params_yaml_is_read(changed: Change) -> None:
    raw = changed("tune", {"losses": ["ce"], "min_epochs": 50})
    raw["compare"]["baseline"] = "ce-tuned"
    with pytest.raises(ConfigError, match=r"tune\.min_epochs = 50: there are 20 epochs"):
        params_from_dict(raw)


def test_a_space_with_everything_fixed_leaves_nothing_to_tune() -> None:
    with pytest.raises(ConfigError, match="nothing left to tune"):
        space("cdw_ce", {"cdw_ce": {"power": 3.0}, "train": {"lr": 1e-3, "weight_decay": 0.1}})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tune.losses", ["lmf"], r"tune\.losses: 'lmf' is not defined under losses; defined: ce, cdw_ce, strong"),
        (
            "tune.losses",
            ["cdw_ce"],
            r"tune\.losses: cdw_ce is tuned and compared with ce, which is not.*"
            r"Set tune\.losses=\[ce, cdw_ce\] and compare\.baseline=ce-tuned",
        ),
        ("tune.losses", ["ce", "cdw_ce"], r"cdw_ce is tuned and compared with ce, .*Set compare\.baseline=ce-tuned"),
        ("compare.baseline", "ce-tuned", r"compare\.baseline: 'ce-tuned' .*; it is where tune\.losses names ce"),
        ("tune.losses", ["ce", "ce"], r"tune\.losses: given more than once: ce"),
        ("tune.space", {"lmf": {"alpha": 1.0}}, r"tune\.space\.lmf: not defined under losses"),
        ("tune.space", {"cdw_ce": {"power": {"lo": 1}}}, r"cdw_ce\.power: unknown key 'lo'; allowed: low, high, log"),
        ("tune.space", {"cdw_ce": {"power": {"low": 1, "choices": [2]}}}, "give either low, high and log, or choices"),
        ("tune.objective", "roc", r"tune\.objective = 'roc': input should be 'auto', 'qwk'"),
        ("tune.heartbeat", 100, r"less than two heartbeats of 100 s"),
        ("tune.trials", 0, r"tune\.trials = 0: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_section_is_refused_when_params_yaml_is_read(
    changed: Change, key: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        params_from_dict(changed(key, value))


def test_an_objective_that_does_not_fit_the_task_is_refused(changed: Change) -> None:
    raw = changed("data.task", "multiclass")
    raw |= {"losses": {"ce": {}}, "compare": {"losses": ["ce"], "seeds": [1], "baseline": "ce"}, "gate": []}
    raw["tune"] = {"objective": "qwk"}
    with pytest.raises(
        ConfigError, match=r"tune\.objective: qwk is not defined for task multiclass; allowed: auto, acc"
    ):
        params_from_dict(raw)


def test_a_tuned_loss_that_does_not_fit_the_task_is_refused(changed: Change) -> None:
    raw = changed("losses.hbce", {})
    raw["tune"] = {"losses": ["hbce"]}
    with pytest.raises(ConfigError, match=r"tune\.losses: hbce fits task multilabel, but data\.task is ordinal"):
        params_from_dict(raw)


def test_the_name_of_a_tuned_loss_is_kept_for_it(changed: Change) -> None:
    raw = changed("losses.cdw_ce-tuned", {"kind": "cdw_ce"})
    raw["tune"] = {"losses": ["cdw_ce"]}
    with pytest.raises(ConfigError, match=r"losses\.cdw_ce-tuned: this name is kept for the tuned cdw_ce"):
        params_from_dict(raw)


def test_auto_is_the_selection_metric_and_a_name_is_itself(changed: Change) -> None:
    assert (
        section(params_from_dict(changed("train.selection_metric", "accuracy")), "tune", "ce").objective == "accuracy"
    )
    assert section(params_from_dict(changed("tune.objective", "mae")), "tune", "ce").objective == "mae"


def test_tuned_losses_are_compared_beside_the_others(changed: Change) -> None:
    raw = changed("tune.losses", ["ce", "strong"])
    raw["compare"]["baseline"] = "ce-tuned"
    compared = section(params_from_dict(raw), "compare").compare
    assert (compared.losses, compared.baseline) == (["ce", "cdw_ce", "ce-tuned", "strong-tuned"], "ce-tuned")


def test_how_the_work_is_carried_out_is_no_part_of_what_a_study_depends_on(changed: Change) -> None:
    before = section(params_from_dict(changed("tune.trials", 7)), "tune", "cdw_ce")
    raw = changed("tune.workers", 4)
    raw["tune"] |= {"storage": "postgresql://someone@somewhere/studies", "heartbeat": 5, "grace": 20, "losses": ["ce"]}
    raw["compare"]["baseline"] = "ce-tuned"
    params = params_from_dict(raw)
    assert section(params, "tune", "cdw_ce") == before
    url = "postgresql://someone@somewhere/studies"
    assert params.tune.study_storage() == StudyStorage(url=url, heartbeat=5, grace=20)
