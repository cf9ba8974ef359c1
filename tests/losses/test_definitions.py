"""What holds for every definition: formula, parameters, tasks, and how a loss is built by name."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raregrade.config import LossChoice, StudyConfig, TrainConfig, params_from_dict, section
from raregrade.config.search_space import search_space
from raregrade.labels import LabelSpace
from raregrade.losses import LOSSES, HeadSpec, create_loss, registry
from raregrade.losses.cdw_ce import CDWCELoss
from raregrade.models.outputs import OUTPUTS


def value_and_gradient(function, logits):
    logits = logits.clone().requires_grad_()
    value = function(logits)
    value.backward()
    return value.detach(), logits.grad


def last_epoch(loss):
    """``loss`` where a schedule has come to its end."""
    loss.set_epoch(9, 10)
    return loss


def test_value_and_gradient_are_those_of_the_reference(setting_with_reference, build, sample, labels_of):
    kind, settings = setting_with_reference
    loss = last_epoch(build(setting_with_reference))
    logits, target = sample(loss, 200)
    if loss.output == "sigmoid" and kind != "hbce":
        target[::7, 1] = float("nan")
        target[5] = float("nan")
    definition = LOSSES[kind].checked(settings)
    value, gradient = value_and_gradient(lambda z: loss(z, target), logits)
    expected = value_and_gradient(lambda z: definition.reference(z, target, labels_of(kind)), logits)
    tight = kind != "dlordinal"  # the library rounds to float32
    torch.testing.assert_close(value.double(), expected[0].double(), rtol=1e-9 if tight else 1e-5, atol=1e-12)
    torch.testing.assert_close(gradient, expected[1], rtol=1e-7 if tight else 1e-4, atol=1e-10 if tight else 1e-6)


def test_each_parameter_changes_the_loss(setting_with_reference, build, sample):
    """Taken back to its default alone, a parameter of a setting changes value, head or schedule."""
    kind, settings = setting_with_reference
    for name in settings:
        others = {key: value for key, value in settings.items() if key != name}
        seen = []
        for given in (settings, others):
            loss = build((kind, given))
            logits, target = sample(loss, 50)
            loss.set_epoch(5, 10)
            seen.append((float(loss(logits, target)), loss.head))
        assert abs(seen[0][0] - seen[1][0]) > 1e-4 or seen[0][1] != seen[1][1], name


def test_the_settings_of_these_tests_vary_every_parameter(every_setting):
    assert every_setting.keys() == LOSSES.keys()
    for kind, settings in every_setting.items():
        varied = {name for given in settings for name, value in given.items()}
        # The metric loss has tests of its own, as it needs features.
        apart = {"metric", "margin", "temperature", "images_per_class"} if kind == "two_stage" else set()
        assert varied | apart == set(LOSSES[kind].model_fields), kind


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_builds_with_its_defaults_for_every_task_it_fits(kind, grades, findings, counts, statistics):
    spaces = {"ordinal": grades, "multiclass": LabelSpace("multiclass", grades.classes), "multilabel": findings}
    definition = LOSSES[kind]
    for task in definition.tasks:
        given = {"statistics": statistics} if task == "multilabel" else {"class_counts": counts}
        loss = create_loss(kind, label_space=spaces[task], **given)
        assert loss.num_outputs == (3 if loss.output in ("corn", "coral") else 4)
        assert loss.output in OUTPUTS
        assert loss.stages == definition().stages
    for task in spaces.keys() - set(definition.tasks):
        with pytest.raises(ValueError, match=f"loss {kind} fits task .*, not {task}"):
            create_loss(kind, label_space=spaces[task], class_counts=counts, statistics=statistics)


@pytest.mark.parametrize("kind", LOSSES)
def test_an_unknown_parameter_is_refused_with_those_allowed(kind, grades):
    allowed = ", ".join(LOSSES[kind].model_fields) or "none"
    with pytest.raises(ValueError, match=rf"{kind}\.strength: unknown parameter; allowed: {allowed}"):
        create_loss(kind, label_space=grades, strength=1)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("weighted_ce", "weighting", "frequency"),
        ("effective_number", "beta", 1.0),
        ("balanced_softmax", "tau", -0.1),
        ("focal", "gamma", -1.0),
        ("ldam", "max_margin", -0.1),
        ("ldam", "scale", 0.0),
        ("ldam", "head", "dense"),
        ("drw", "start", 1.1),
        ("lmf", "alpha", -1.0),
        ("lmf", "beta", -1.0),
        ("lmf", "gamma", -1.0),
        ("lmf", "weighting", "x"),
        ("cdw_ce", "power", 0.0),
        ("cdw_ce", "power", 20.1),
        ("cdw_ce", "margin", 1.0),
        ("cdw_ce", "margin", -0.1),
        ("cdw_ce", "margin_form", "other"),
        ("dlordinal", "loss", "earth"),
        ("dlordinal", "eta", 1.1),
        ("two_stage", "metric", "hardest"),
        ("two_stage", "classifier", "svm"),
        ("two_stage", "metric_weight", -1.0),
        ("two_stage", "margin", 2.5),
        ("two_stage", "temperature", 0.0),
        ("two_stage", "classifier_share", 1.0),
        ("two_stage", "tau", -1.0),
        ("weighted_bce", "max_weight", 0.5),
        ("focal_bce", "gamma", -1.0),
        ("asymmetric_bce", "clip", 1.0),
        ("hbce", "penalty", -1.0),
        ("hbce", "mode", "firm"),
        ("hbce", "scale", -1.0),
    ],
)
def test_a_value_out_of_range_is_refused_however_it_is_given(kind, name, value, grades):
    for refuse in (
        lambda: LOSSES[kind](**{name: value}),
        lambda: create_loss(kind, label_space=grades, **{name: value}),
        lambda: params_with({kind: {name: value}}),
    ):
        with pytest.raises(ValueError, match=rf"{name}\b"):
            refuse()


def params_with(losses, **sections):
    first = next(iter(losses))
    return params_from_dict(
        {
            "data": {"source": "folder", "path": "images", "task": "ordinal", "classes": ["a", "b", "c", "d"]},
            "losses": losses,
            "compare": {"losses": [first], "seeds": [1], "baseline": first},
            **sections,
        }
    )


def test_an_unknown_name_is_refused_with_the_nearest(grades):
    with pytest.raises(ValueError, match=r"unknown loss 'cdwce' \(did you mean 'cdw_ce'\?\)"):
        create_loss("cdwce", label_space=grades)


def test_missing_counts_are_refused(grades):
    with pytest.raises(ValueError, match="loss lmf: needs the class counts"):
        create_loss("lmf", label_space=grades)
    with pytest.raises(ValueError, match="3 class counts for 4 classes"):
        create_loss("lmf", label_space=grades, class_counts=[1, 2, 3])


@pytest.mark.parametrize("name", ["weighted_ce", "effective_number", "balanced_softmax", "ldam", "drw", "lmf"])
def test_a_class_absent_from_training_is_refused_by_name(name, grades):
    with pytest.raises(ValueError, match="severe: 0"):
        create_loss(name, label_space=grades, class_counts=[10, 5, 2, 0])


@pytest.mark.parametrize("name", ["ce", "focal", "cdw_ce", "coral", "corn"])
def test_losses_without_counts_take_an_absent_class(name, grades):
    assert create_loss(name, label_space=grades, class_counts=[10, 5, 2, 0]).num_outputs in (3, 4)


def test_class_counts_come_from_the_statistics_where_none_are_given(findings, statistics):
    assert create_loss("weighted_bce", label_space=findings, statistics=statistics).num_outputs == 4


@pytest.mark.parametrize("name", ["ldam", "drw", "lmf"])
def test_margin_losses_ask_for_a_cosine_head_and_do_not_scale_twice(name, grades, counts):
    loss = create_loss(name, label_space=grades, class_counts=counts, scale=10.0)
    linear = create_loss(name, label_space=grades, class_counts=counts, scale=10.0, head="linear")
    assert loss.head == HeadSpec("cosine", 10.0)
    assert linear.head == HeadSpec("linear")
    cosines, target = torch.rand(9, 4) - 0.5, torch.arange(9) % 4
    if name == "lmf":  # the focal term sees the logits of its head: compare the margin terms alone
        loss.beta = linear.beta = 0.0
    torch.testing.assert_close(loss(10 * cosines, target), linear(cosines, target))


def test_only_the_losses_that_are_looked_up_are_imported():
    code = (
        "import sys; from raregrade.losses import LOSSES; assert 'focal' in LOSSES and list(LOSSES)\n"
        "assert 'torch' not in sys.modules; LOSSES['coral']\n"
        "print(sorted(m for m in sys.modules if m.startswith('raregrade.losses.')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "coral" in found
    assert "lmf" not in found


@pytest.fixture
def brier(tmp_path, monkeypatch):
    """The loss of docs/losses.md as one new file, registered by one line."""
    text = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
    code = text.partition("## Adding a loss")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_brier.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.PLACES, "brier", "my_brier:Brier")
    yield "brier"
    sys.modules.pop("my_brier", None)


def test_a_new_loss_is_one_file_and_one_line(brier, grades):
    params = params_with({"brier": {"power": 3.0}})
    choice = section(params, "train", "brier").loss
    loss = create_loss(choice.kind, label_space=grades, **choice.params.model_dump())
    model = torch.nn.Linear(5, loss.num_outputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    inputs, target = torch.randn(64, 5), torch.arange(64) % 4
    before = loss(model(inputs), target)
    before.backward()
    optimizer.step()
    assert loss(model(inputs), target) < before

    with pytest.raises(ValueError, match=r"losses\.brier\.power = 9"):
        params_with({"brier": {"power": 9}})
    space = search_space(StudyConfig(), LossChoice(name="brier", kind="brier", params=choice.params), TrainConfig())
    assert space.spaces["power"].high == 4.0
    with pytest.raises(ValueError, match=r"tune\.space\.brier\.power"):
        params_with({"brier": {}}, tune={"space": {"brier": {"power": {"high": 99.0}}}})


def test_direct_construction_takes_the_checked_definition(logits, target):
    definition = LOSSES["cdw_ce"](power=3.0)
    by_name = create_loss("cdw_ce", label_space=LabelSpace("ordinal", ("a", "b", "c", "d")), power=3.0)
    torch.testing.assert_close(CDWCELoss(definition)(logits, target), by_name(logits, target))
