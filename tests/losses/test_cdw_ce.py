import math

import pytest
import torch
from dlordinal.losses import CDWCELoss as DlordinalCDWCE
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from raregrade.losses.cdw_ce import CDWCE, CDWCELoss, distance_weights

EXACT = {
    1: [0.311214, 1.224483, 2.838119, 33.414078],
    2: [0.475572, 1.905668, 2.938624, 100.242208],
    5: [4.919520, 11.442263, 4.473698, 2706.539001],
    6: [13.120868, 22.341229, 6.414591, 8119.616793],
    7: [36.466645, 44.139160, 10.711118, 24358.849974],
}
WITH_MARGIN = {
    ("dead_zone", 0.025): [0.596755, 10.272367, 3.110743],
    ("dead_zone", 0.05): [0.131025, 9.141400, 2.166665],
    ("tighten", 0.025): [12.035198, 12.653865, 11.971305],
    ("tighten", 0.05): [19.339234, 13.910259, 20.162015],
}


def batch(seed, size, classes, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (size,), generator=generator)


@pytest.mark.parametrize("power", EXACT)
def test_equals_the_check_values(power, logits, target):
    torch.testing.assert_close(
        CDWCELoss(CDWCE(power=power), reduction="none")(logits, target),
        torch.tensor(EXACT[power], dtype=torch.float64),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize(("form", "margin"), WITH_MARGIN)
def test_equals_the_check_values_of_both_margin_forms(form, margin, logits, target):
    value = CDWCELoss(CDWCE(power=5.0, margin=margin, margin_form=form), reduction="none")(logits[:3], target[:3])
    expected = torch.tensor(WITH_MARGIN[form, margin], dtype=torch.float64)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


def test_the_weights_of_four_grades_are_the_published_ones():
    assert distance_weights(4, 5.0)[0].tolist() == [0, 1, 32, 243]
    assert distance_weights(4, 7.0)[3].tolist() == [2187, 128, 1, 0]


@pytest.mark.parametrize(("power", "expected"), [(0.5, 1.73862), (1.0, 2.37753), (2.0, 4.99029)])
def test_equals_the_values_of_dlordinals_own_tests(power, expected):
    logits = torch.tensor([[1, 2, 3, 4], [5, 8, 1, 0], [-2, 5, 3, 2], [-4, 5, 3, 2]], dtype=torch.float64)
    assert CDWCELoss(CDWCE(power=power))(logits, torch.arange(4)).item() == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_equals_dlordinal_where_its_exponentials_fit(margin):
    logits, target = batch(1, 200, 5)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = CDWCELoss(CDWCE(power=2.0, margin=margin))(ours, target)
    expected = DlordinalCDWCE(5, alpha=2.0, margin=margin)(theirs, target)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


@given(seed=st.integers(0, 2**20), power=st.floats(0.1, 9), spread=st.floats(0.01, 100))
def test_two_classes_are_cross_entropy_for_every_power(seed, power, spread):
    logits, target = batch(seed, 9, 2, spread)
    torch.testing.assert_close(CDWCELoss(CDWCE(power=power))(logits, target), functional.cross_entropy(logits, target))


@given(seed=st.integers(0, 2**20), classes=st.integers(2, 8), power=st.floats(0.1, 7), spread=st.floats(0.01, 50))
def test_reversing_the_grades_changes_nothing(seed, classes, power, spread):
    logits, target = batch(seed, 6, classes, spread)
    loss = CDWCELoss(CDWCE(power=power))
    torch.testing.assert_close(loss(logits.flip(1), classes - 1 - target), loss(logits, target))


@given(seed=st.integers(0, 2**20), shift=st.floats(-1000, 1000), classes=st.integers(2, 6))
def test_shifting_all_logits_changes_nothing(seed, shift, classes):
    logits, target = batch(seed, 6, classes)
    loss = CDWCELoss(CDWCE(power=2.0))
    torch.testing.assert_close(loss(logits + shift, target), loss(logits, target), rtol=1e-6, atol=1e-8)
    logits.requires_grad_()
    loss(logits, target).backward()
    torch.testing.assert_close(logits.grad.sum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-9)


@given(seed=st.integers(0, 2**20), spread=st.sampled_from([1.0, 10.0, 100.0, 1e4]), classes=st.integers(2, 6))
def test_float32_is_right_to_rounding_at_every_size_of_logits(seed, spread, classes):
    logits, target = batch(seed, 8, classes, spread)
    single = logits.float().requires_grad_()
    double = single.detach().double().requires_grad_()
    loss = CDWCELoss(CDWCE(power=3.0))
    value, exact = loss(single, target), loss(double, target)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)
    value.backward()
    exact.backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-3, atol=1e-4)


def test_the_worst_error_keeps_its_gradient_where_a_clamp_would_lose_it():
    logits = torch.tensor([[12.0, 0.0, 0.0, 0.0]], requires_grad=True)
    CDWCELoss(CDWCE(power=5.0))(logits, torch.tensor([3])).backward()
    assert logits.grad[0, 0].item() == pytest.approx(243, rel=1e-4)


def test_value_and_gradient_are_exact_at_ten_thousand():
    logits = torch.tensor([[1e4, -1e4, -1e4, -1e4]], requires_grad=True)
    value = CDWCELoss(CDWCE(power=5.0))(logits, torch.tensor([3]))
    value.backward()
    assert value.item() == pytest.approx(243 * (2e4 - math.log(3)), rel=1e-7)  # the others' mass is 3 exp(-2e4)
    torch.testing.assert_close(logits.grad, torch.tensor([[243.0, -81.0, -81.0, -81.0]]))
    right = torch.tensor([[1e4, -1e4, -1e4, -1e4]], requires_grad=True)
    value = CDWCELoss(CDWCE(power=5.0))(right, torch.tensor([0]))
    value.backward()
    assert value.item() == 0
    assert right.grad.abs().max().item() == 0


@pytest.mark.parametrize(("margin", "form", "most"), [(0.05, "dead_zone", 2.9957), (0.05, "tighten", 16.1181)])
def test_both_margin_forms_bound_a_confident_error(margin, form, most):
    value = CDWCELoss(CDWCE(power=1.0, margin=margin, margin_form=form))(torch.tensor([[1e4, -1e4]]), torch.tensor([1]))
    assert value.item() == pytest.approx(most, rel=1e-4)


def test_the_dead_zone_costs_nothing_below_the_margin():
    logits = torch.tensor([[5.0, 0.0, -2.0, -3.0]], requires_grad=True)
    value = CDWCELoss(CDWCE(power=5.0, margin=0.05))(logits, torch.tensor([0]))
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().max().item() == 0


def test_a_second_derivative_is_refused_instead_of_wrong():
    logits = torch.randn(3, 4, requires_grad=True)
    value = CDWCELoss(CDWCE())(logits, torch.tensor([0, 1, 2]))
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    with pytest.raises(RuntimeError, match=r"grad"):
        gradient.sum().backward()
