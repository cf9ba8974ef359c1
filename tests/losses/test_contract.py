"""What holds for every loss: gradients, reductions, precision, extremes, compilation, bad input."""

import pytest
import torch

HALF = (torch.float16, torch.bfloat16)


def test_the_gradient_is_the_derivative_of_the_value(setting, build, sample):
    loss = build(setting, "none")
    logits, target = sample(loss, 12)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_reduced_value_has_the_gradient_of_its_formula(setting, reduction, build, sample):
    loss = build(setting, reduction)
    logits, target = sample(loss, 7)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())


def test_sum_is_the_sum_of_the_per_sample_values(setting, build, sample):
    logits, target = sample(build(setting), 33)
    each = build(setting, "none")(logits, target)
    assert each.shape == (33,)
    torch.testing.assert_close(build(setting, "sum")(logits, target), each.sum())


def test_the_batch_order_does_not_matter(setting, build, sample):
    loss = build(setting)
    logits, target = sample(loss, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(logits[order], target[order]), loss(logits, target))


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_raised_to_float32(setting, dtype, build, sample):
    loss = build(setting)
    logits, target = sample(loss, 16, dtype)
    logits.requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(value, loss(logits.detach().float(), target))


def test_float64_keeps_its_precision(setting, build, sample):
    loss = build(setting)
    logits, target = sample(loss, 16)
    assert loss(logits, target).dtype == torch.float64
    torch.testing.assert_close(loss(logits.float(), target), loss(logits, target).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_value_and_gradient_are_finite_at_extreme_logits(setting, dtype, build, sample):
    loss = build(setting)
    _, target = sample(loss, 64)
    signs = torch.randn(64, loss.num_outputs, generator=torch.Generator().manual_seed(2)).sign()
    logits = (1e4 * signs).to(dtype).requires_grad_()
    value = loss(logits, target)
    assert torch.isfinite(value)
    # The gradient in the loss's own precision: float16 cannot hold the gradient of a mean of 243s times 1e4.
    raised = logits.detach().float().requires_grad_()
    loss(raised, target).backward()
    assert torch.isfinite(raised.grad).all()


@pytest.mark.parametrize("grade", [0, 3])
def test_a_batch_of_one_class_is_fine(setting, grade, build, sample):
    loss = build(setting)
    logits, target = sample(loss, 16)
    logits.requires_grad_()
    loss(logits, torch.full_like(target, grade) if target.dim() == 1 else torch.zeros_like(target)).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_compiled_loss_is_one_graph_and_gives_the_same(setting, build, sample):
    loss = build(setting)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    logits, target = sample(loss, 32, torch.float32)
    eager_logits, compiled_logits = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    eager, compiled_value = loss(eager_logits, target), compiled(compiled_logits, target)
    eager.backward()
    compiled_value.backward()
    torch.testing.assert_close(compiled_value, eager)
    torch.testing.assert_close(compiled_logits.grad, eager_logits.grad)
    torch._dynamo.reset()


def test_under_autocast_the_value_is_that_of_float32(setting, build, sample):
    loss = build(setting)
    logits, target = sample(loss, 32, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, target)
    torch.testing.assert_close(value, loss(logits, target))


def test_logits_are_left_as_they_were(setting, build, sample):
    loss = build(setting)
    for batch in (1, 8):
        logits, target = sample(loss, batch)
        before = logits.clone()
        loss(logits, target)
        torch.testing.assert_close(logits, before, rtol=0, atol=0)


def test_logits_and_target_must_fit_each_other(setting, build, sample):
    loss = build(setting)
    logits, target = sample(loss, 8)
    with pytest.raises(ValueError, match=r"\[8, .*\[7"):
        loss(logits, target[:7])
    wide_target = target if target.dim() == 1 else torch.cat([target, target], 1)
    with pytest.raises(ValueError, match=r"built for"):
        loss(torch.cat([logits, logits], 1), wide_target)
    with pytest.raises(ValueError, match="empty"):
        loss(logits[:0], target[:0])


def test_a_target_of_the_wrong_type_is_refused(setting, build, sample):
    loss = build(setting)
    logits, target = sample(loss, 8)
    with pytest.raises(ValueError, match=r"int64|floating point"):
        loss(logits, target.int() if target.dim() == 1 else target.long())
    with pytest.raises(ValueError, match="floating point"):
        loss(logits.long(), target)


@pytest.mark.parametrize("index", [-1, -100, 4])
def test_a_class_index_out_of_range_is_refused(single_label_setting, index, build, sample):
    loss = build(single_label_setting)
    logits, target = sample(loss, 8)
    target[3] = index
    with pytest.raises(ValueError, match=f"{index}.*classes are 0 to 3"):
        loss(logits, target)


def test_an_unknown_reduction_is_refused(setting, build):
    with pytest.raises(ValueError, match="reduction"):
        build(setting, "median")


@pytest.mark.parametrize("value", [-1.0, 2.0, float("inf")])
def test_a_label_outside_0_and_1_is_refused(multilabel_setting, value, build, sample):
    loss = build(multilabel_setting)
    logits, target = sample(loss, 8)
    target[3, 1] = value
    with pytest.raises(ValueError, match="0, 1 and NaN"):
        loss(logits, target)
