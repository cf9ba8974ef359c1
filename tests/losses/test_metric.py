import sys
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raregrade.losses.metric import MetricLoss, MetricName

METRICS = get_args(MetricName)


def batch(seed, size=16, classes=3, width=5):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, width, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(classes, (size,), generator=generator)


def unit(embeddings):
    return embeddings / embeddings.norm(dim=1, keepdim=True)


def positives_and_negatives(target, a):
    same = [i for i in range(len(target)) if target[i] == target[a] and i != a]
    return same, [i for i in range(len(target)) if target[i] != target[a]]


def naive_batch_hard(f, target, margin):
    terms = []
    for a in range(len(f)):
        same, other = positives_and_negatives(target, a)
        if same and other:
            far = max((f[a] - f[p]).norm() for p in same)
            near = min((f[a] - f[n]).norm() for n in other)
            terms.append(torch.clamp(margin + far - near, min=0))
    return torch.stack(terms).mean()


def naive_semi_hard(f, target, margin):
    terms = []
    for a in range(len(f)):
        same, other = positives_and_negatives(target, a)
        for p in same:
            for n in other:
                gap = (f[a] - f[n]).norm() - (f[a] - f[p]).norm()
                if 0 < gap <= margin:
                    terms.append(margin - gap)
    return torch.stack(terms).mean()


def naive_supcon(f, target, temperature):
    terms = []
    for a in range(len(f)):
        same, other = positives_and_negatives(target, a)
        if same and other:
            everything = torch.stack([f[a] @ f[i] / temperature for i in same + other]).logsumexp(0)
            terms.append(-torch.stack([f[a] @ f[p] / temperature - everything for p in same]).mean())
    return torch.stack(terms).mean()


def naive_class_center(f, target, margin):
    centers = {int(c): f[target == c].mean(0) for c in target.unique()}
    terms = []
    for a in range(len(f)):
        same, other = positives_and_negatives(target, a)
        if same and other:
            own = (f[a] - centers[int(target[a])]).norm()
            near = min((f[a] - center).norm() for c, center in centers.items() if c != int(target[a]))
            terms.append(torch.clamp(margin + own - near, min=0))
    return torch.stack(terms).mean()


@given(seed=st.integers(0, 2**20), margin=st.floats(0.05, 1))
def test_triplet_losses_equal_plain_loops(seed, margin):
    embeddings, target = batch(seed)
    f = unit(embeddings)
    expected = naive_batch_hard(f, target, margin)
    torch.testing.assert_close(MetricLoss("batch_hard", 3, margin)(embeddings, target), expected, rtol=1e-6, atol=1e-6)
    expected = naive_class_center(f, target, margin)
    torch.testing.assert_close(MetricLoss("class_center", 3, margin)(embeddings, target), expected)


def test_semi_hard_and_supervised_contrastive_equal_plain_loops():
    embeddings, target = batch(7)
    f = unit(embeddings)
    semi_hard = MetricLoss("semi_hard", 3, 0.4)(embeddings, target)
    torch.testing.assert_close(semi_hard, naive_semi_hard(f, target, 0.4), rtol=1e-6, atol=1e-6)
    contrastive = MetricLoss("supcon", 3, temperature=0.2)(embeddings, target)
    torch.testing.assert_close(contrastive, naive_supcon(f, target, 0.2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_a_smaller_loss_means_classes_lie_apart(name):
    target = torch.tensor([0, 0, 0, 1, 1, 1])
    apart = torch.tensor([[1.0, 0.01 * i] for i in range(3)] + [[-1.0, 0.01 * i] for i in range(3)])
    mixed = apart[torch.tensor([0, 3, 1, 4, 2, 5])]
    loss = MetricLoss(name, 2, 0.5)
    assert loss(apart, target) <= loss(mixed, target)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("target", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["no negatives", "no positives"])
def test_a_batch_without_triplets_gives_a_differentiable_zero(name, target):
    embeddings = torch.randn(4, 5, requires_grad=True)
    if name == "npairs" and target == [0, 0, 0, 0]:
        target = [0, 1, 2, 3]  # N-pairs needs a positive pair alone; with one class its value is log 1
    value = MetricLoss(name, 4)(embeddings, torch.tensor(target))
    value.backward()
    assert value.item() == 0
    assert embeddings.grad.abs().max().item() == 0


@pytest.mark.parametrize("name", METRICS)
def test_an_anchor_alone_in_its_class_is_skipped(name):
    embeddings = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = MetricLoss(name, 3, 0.5)(embeddings, torch.tensor([0, 0, 1, 1, 2]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize("name", METRICS)
def test_embeddings_in_one_point_have_a_finite_gradient(name):
    embeddings = torch.ones(6, 4, requires_grad=True)
    MetricLoss(name, 2)(embeddings, torch.tensor([0, 0, 0, 1, 1, 1])).backward()
    assert torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize("name", METRICS)
def test_half_precision_features_are_raised_to_float32(name):
    embeddings = torch.randn(8, 4, dtype=torch.bfloat16)
    target = torch.tensor([0, 0, 1, 1, 0, 1, 0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = MetricLoss(name, 2)(embeddings, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, MetricLoss(name, 2)(embeddings.float(), target))


def test_the_class_center_gradient_is_the_derivative():
    embeddings, target = batch(3, size=8)
    loss = MetricLoss("class_center", 3, 0.5)
    assert torch.autograd.gradcheck(lambda f: loss(f, target), embeddings.requires_grad_())


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(ValueError, match=r"raregrade\[losses\]"):
        MetricLoss("batch_hard", 3)
    MetricLoss("class_center", 3)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="embeddings"):
        MetricLoss("class_center", 3)(torch.zeros(4, 2), torch.zeros(5, dtype=torch.int64))
