import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from raregrade.labels import LabelSpace, label_statistics, violation_rate
from raregrade.losses import create_loss
from raregrade.losses.bce import BCELoss
from raregrade.losses.hbce import HBCELoss, data_driven_penalties

EDGES = [(0, 1), (0, 2), (1, 2), (1, 3)]
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
    hard = HBCELoss(EDGES, 0.5, reduction="none")(logits, TARGET)
    assert hard.tolist() == pytest.approx([0.900367, 1.544208], abs=1e-6)
    assert HBCELoss(EDGES)(logits, TARGET).item() == pytest.approx(1.222288, abs=1e-6)
    soft = HBCELoss(EDGES, 1.0, "soft").violations(logits)
    assert soft.tolist() == pytest.approx([0.30, 0.55], abs=1e-12)


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_equals_a_plain_loop(mode):
    logits, target = batch(0)
    penalty = {edge: 0.1 * (i + 1) for i, edge in enumerate(EDGES)}
    each = []
    for z, y in zip(logits, target, strict=True):
        value = functional.binary_cross_entropy_with_logits(z, y)
        p = torch.sigmoid(z)
        for (u, v), weight in penalty.items():
            broken = float(p[u] < 0.5 < p[v]) if mode == "hard" else max(p[v] - p[u], 0)
            value = value + weight * broken
        each.append(value)
    torch.testing.assert_close(HBCELoss(EDGES, penalty, mode, reduction="none")(logits, target), torch.stack(each))
    torch.testing.assert_close(HBCELoss(EDGES, penalty, mode)(logits, target), torch.stack(each).mean())


@given(seed=st.integers(0, 2**20), penalty=st.floats(0, 50), spread=st.floats(0.1, 50))
def test_the_gradient_of_the_published_penalty_is_that_of_bce(seed, penalty, spread):
    logits, target = batch(seed, 6, spread)
    plain = gradient(BCELoss(), logits, target)
    torch.testing.assert_close(gradient(HBCELoss(EDGES, penalty), logits, target), plain, rtol=0, atol=0)


@given(seed=st.integers(0, 2**20), mode=st.sampled_from(["hard", "soft"]))
def test_consistent_predictions_cost_what_bce_costs(seed, mode):
    logits, target = batch(seed, 6)
    logits = logits.cummin(1).values  # every child of EDGES comes after its parents
    torch.testing.assert_close(HBCELoss(EDGES, mode=mode)(logits, target), BCELoss()(logits, target))


@given(seed=st.integers(0, 2**20))
def test_the_soft_penalty_is_positive_wherever_the_published_one_is(seed):
    logits, _ = batch(seed, 6)
    hard, soft = (HBCELoss(EDGES, mode=mode).violations(logits) for mode in ("hard", "soft"))
    assert (soft[hard > 0] > 0).all()


def test_training_with_the_soft_penalty_reduces_violations_and_the_published_one_does_not():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(400, 6, generator=generator)
    # Labels that contradict the hierarchy, so that BCE alone learns to violate it.
    target = (inputs @ torch.randn(6, 4, generator=generator) > torch.tensor([2.0, 1.0, -1.0, 0.0])).float()
    space = LabelSpace("multilabel", ("a", "b", "c", "d"), (("a", "b"), ("a", "c"), ("b", "c"), ("b", "d")))

    def rate(mode, penalty):
        torch.manual_seed(0)
        model = torch.nn.Linear(6, 4)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        loss = HBCELoss(EDGES, penalty, mode)
        for _ in range(150):
            optimizer.zero_grad()
            loss(model(inputs), target).backward()
            optimizer.step()
        return violation_rate(model(inputs).sigmoid().detach().numpy(), space)

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
    assert data_driven_penalties(space.edge_indices, statistics, 2.5).tolist() == pytest.approx(expected, rel=1e-12)


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


def test_a_penalty_for_no_edge_or_an_edge_without_penalty_is_refused_by_name(findings):
    with pytest.raises(ValueError, match=r"missing: opacity -> edema.*not an edge: edema -> opacity"):
        create_loss(
            "hbce",
            label_space=findings,
            penalty={"opacity": {"fluid": 1.0}, "fluid": {"edema": 1.0, "effusion": 1.0}, "edema": {"opacity": 1.0}},
        )


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], "needs a hierarchy"),
        ([(0, 4)], r"edge \(0, 4\) names an unknown label; the labels are 0 to 3"),
        ([(-1, 2)], "unknown label"),
        ([(0, 1), (1, 2), (2, 0)], "cycle"),
        ([(1, 1)], "cycle"),
        ([(0, 1), (0, 1)], "twice"),
    ],
)
def test_edges_that_are_no_hierarchy_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        HBCELoss(edges, num_labels=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": -1.0}, "penalty of edge"),
        ({"penalty": "learned"}, "unknown"),
        ({"penalty": "data_driven"}, "statistics"),
        ({"penalty": {(0, 1): 1.0}}, "missing"),
        ({"mode": "firm"}, "mode"),
        ({"scale": -1.0}, "scale"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HBCELoss(EDGES, **arguments)


def test_a_label_space_without_hierarchy_is_refused():
    with pytest.raises(ValueError, match="hierarchy"):
        create_loss("hbce", label_space=LabelSpace("multilabel", ("a", "b")))
