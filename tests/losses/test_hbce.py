import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.labels import LabelSpace, label_statistics, violation_rate
from raregrade.losses import TrainingLabels, create_loss
from raregrade.losses.bce import BCELoss
from raregrade.losses.hbce import HBCE

LABELS = TrainingLabels(
    LabelSpace("multilabel", ("a", "b", "c", "d"), (("a", "b"), ("a", "c"), ("b", "c"), ("b", "d")))
)
PROBS = torch.tensor([[0.9, 0.4, 0.7, 0.2], [0.3, 0.6, 0.55, 0.1]], dtype=torch.float64)
TARGET = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


def batch(seed, size=20, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(size, 4, generator=generator) < 0.4).double()


def gradient(loss, logits, target):
    logits = logits.clone().requires_grad_()
    loss(logits, target).backward()
    return logits.grad


def test_equals_the_check_values():
    logits = PROBS.logit()
    plain = BCELoss(reduction="none")(logits, TARGET)
    assert plain.tolist() == pytest.approx([0.400367, 0.544208], abs=1e-6)
    hard = HBCE().build(LABELS, "none")(logits, TARGET)
    assert hard.tolist() == pytest.approx([0.900367, 1.544208], abs=1e-6)
    assert HBCE().build(LABELS)(logits, TARGET).item() == pytest.approx(1.222288, abs=1e-6)
    soft = HBCE(penalty=1.0, mode="soft").build(LABELS).violations(logits)
    assert soft.tolist() == pytest.approx([0.30, 0.55], abs=1e-12)


@given(seed=st.integers(0, 2**20), penalty=st.floats(0, 50), spread=st.floats(0.1, 50))
def test_the_gradient_of_the_published_penalty_is_that_of_bce(seed, penalty, spread):
    logits, target = batch(seed, 6, spread)
    plain = gradient(BCELoss(), logits, target)
    torch.testing.assert_close(gradient(HBCE(penalty=penalty).build(LABELS), logits, target), plain, rtol=0, atol=0)


@given(seed=st.integers(0, 2**20), mode=st.sampled_from(["hard", "soft"]))
def test_consistent_predictions_cost_what_bce_costs(seed, mode):
    logits, target = batch(seed, 6)
    logits = logits.cummin(1).values  # every child comes after its parents
    torch.testing.assert_close(HBCE(mode=mode).build(LABELS)(logits, target), BCELoss()(logits, target))


@given(seed=st.integers(0, 2**20))
def test_the_soft_penalty_is_positive_wherever_the_published_one_is(seed):
    logits, _ = batch(seed, 6)
    hard, soft = (HBCE(mode=mode).build(LABELS).violations(logits) for mode in ("hard", "soft"))
    assert (soft[hard > 0] > 0).all()


def test_training_with_the_soft_penalty_alone_reduces_violations():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(400, 6, generator=generator)
    # Labels that contradict the hierarchy, so that BCE alone learns to violate it.
    target = (inputs @ torch.randn(6, 4, generator=generator) > torch.tensor([2.0, 1.0, -1.0, 0.0])).float()

    def rate(mode, penalty):
        torch.manual_seed(0)
        model = torch.nn.Linear(6, 4)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        loss = HBCE(penalty=penalty, mode=mode).build(LABELS)
        for _ in range(150):
            optimizer.zero_grad()
            loss(model(inputs), target).backward()
            optimizer.step()
        return violation_rate(model(inputs).sigmoid().detach().numpy(), LABELS.space)

    plain, hard, soft = rate("hard", 0.0), rate("hard", 2.0), rate("soft", 2.0)
    assert hard == plain
    assert plain > 0.2
    assert soft < 0.5 * plain


def test_data_driven_penalties_follow_the_published_formula():
    targets = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, np.nan], [np.nan, 1, 0, 0]])
    space = LabelSpace("multilabel", ("a", "b", "c", "d"), (("a", "b"), ("a", "c"), ("b", "d")))
    statistics = label_statistics(targets, space)
    eps = 1e-6
    expected = []
    for u, v in space.edge_indices:
        known = [(row[u], row[v]) for row in targets if not np.isnan(row[u]) and not np.isnan(row[v])]
        absent = sum(1 for parent, _ in known if parent == 0)
        broken = sum(1 for parent, child in known if parent == 0 and child == 1)
        expected.append(2.5 * (1 - (broken + eps) / (absent + 2 * eps)))
    penalties = HBCE(penalty="data_driven", scale=2.5).penalties(TrainingLabels(space, None, statistics))
    assert penalties.tolist() == pytest.approx(expected, rel=1e-12)


def test_scale_multiplies_data_driven_penalties_alone(findings, statistics):
    pairs = {}
    for penalty in ("data_driven", 0.3):
        values = [
            create_loss("hbce", label_space=findings, statistics=statistics, penalty=penalty, scale=scale).penalties
            for scale in (1.0, 2.0)
        ]
        pairs[penalty] = values
    torch.testing.assert_close(pairs["data_driven"][1], 2 * pairs["data_driven"][0])
    torch.testing.assert_close(pairs[0.3][1], pairs[0.3][0])


def test_penalties_are_given_by_label_names(findings):
    nested = {"opacity": {"fluid": 0.1, "edema": 0.2}, "fluid": {"edema": 0.3, "effusion": 0.4}}
    pairs = {(parent, child): value for parent, children in nested.items() for child, value in children.items()}
    for penalty in (nested, pairs):
        loss = create_loss("hbce", label_space=findings, penalty=penalty)
        assert loss.penalties.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_penalties_that_do_not_name_each_edge_are_refused(findings):
    with pytest.raises(ValueError, match=r"missing: opacity -> edema.*not an edge: edema -> opacity"):
        create_loss(
            "hbce",
            label_space=findings,
            penalty={"opacity": {"fluid": 1.0}, "fluid": {"edema": 1.0, "effusion": 1.0}, "edema": {"opacity": 1.0}},
        )


def test_data_driven_penalties_without_statistics_are_refused(findings):
    with pytest.raises(ValueError, match="statistics"):
        create_loss("hbce", label_space=findings, penalty="data_driven")


def test_a_label_space_without_hierarchy_is_refused():
    with pytest.raises(ValueError, match="hierarchy"):
        create_loss("hbce", label_space=LabelSpace("multilabel", ("a", "b")))
