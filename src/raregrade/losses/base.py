"""What every loss shares: the interface to the training loop, checks of input, dtype rules, reductions.

No formula lives here. Shapes in names and comments: B batch, C classes, K labels of a multilabel task, E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from raregrade.errors import UserError
from raregrade.losses.definition import REDUCTIONS, HeadSpec, Reduction, Stage


class Loss(nn.Module):
    """Base of all losses on logits.

    Attributes:
        num_outputs: width of the head.
        output: how logits become probabilities, a name that ``raregrade.models.outputs`` knows.
        decision: the rule by which its probabilities become grades, a name that ``raregrade.models.decisions`` knows.
        head: the head that the loss expects.
        reduction: ``mean`` | ``sum`` over the batch, or ``none`` for one value a sample, [B].
        stages: the stages of training, most often one.
        stage: the number of the current stage.
    """

    decision: Literal["argmax", "median", "threshold"] = "argmax"
    stages: tuple[Stage, ...] = (Stage("train"),)
    stage: int = 0

    def __init__(
        self,
        num_outputs: int | None,
        *,
        output: str = "softmax",
        head: HeadSpec | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise UserError(f"reduction {reduction!r} is unknown; allowed: {', '.join(REDUCTIONS)}")
        self._num_outputs = num_outputs
        self.output = output
        self.head = head if head is not None else HeadSpec()
        self.reduction: Reduction = reduction

    @property
    def num_outputs(self) -> int:
        """Width of the head. Raises UserError for a loss built without the number of classes."""
        if self._num_outputs is None:
            raise UserError(f"{type(self).__name__} was built without num_classes; give it, or use create_loss")
        return self._num_outputs

    def add_constant(self, name: str, value: Tensor | None) -> None:
        """Keep ``value`` as a buffer in float32 and in float64: float64 logits then get constants of full precision."""
        self.register_buffer(name, None if value is None else value.float(), persistent=False)
        self.register_buffer(f"{name}_float64", None if value is None else value.double(), persistent=False)

    def constant(self, name: str, dtype: torch.dtype) -> Tensor:
        """The constant ``name`` in float32 or float64."""
        value = self.optional_constant(name, dtype)
        if value is None:
            raise UserError(f"{type(self).__name__} was built without {name}")
        return value

    def optional_constant(self, name: str, dtype: torch.dtype) -> Tensor | None:
        """As ``constant``, or None where it was given as None."""
        value = self._buffers[f"{name}_float64" if dtype is torch.float64 else name]
        # Another dtype is there only after the whole module was converted.
        return value if value is None or value.dtype is dtype else value.to(dtype)

    @property
    def needs_features(self) -> bool:
        """Whether ``forward`` takes the features [B, D] as third argument in the current stage."""
        return False

    def set_stage(self, stage: int) -> None:
        """Called as stage ``stage`` (from 0) of ``stages`` begins."""
        if not 0 <= stage < len(self.stages):
            raise UserError(f"stage {stage} doesn't exist; the stages are 0 to {len(self.stages) - 1}")
        self.stage = stage

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch (0 … epochs - 1) for losses that follow a schedule; does nothing here."""


def raise_precision(logits: Tensor) -> Tensor:
    """float16 and bfloat16 to float32; float32 and float64 stay as they are."""
    if logits.dtype in (torch.float32, torch.float64):
        return logits
    if not logits.is_floating_point():
        raise UserError(f"logits must be floating point, got {logits.dtype}")
    return logits.float()


def check_class_target(logits: Tensor, target: Tensor, num_outputs: int | None, num_classes: int | None = None) -> None:
    """Check ``logits`` [B, C] against ``target`` int64 [B]; ``num_classes`` is the range of the target if it isn't C.

    The range is checked on the CPU outside ``torch.compile`` alone: on a GPU it would wait for the device, in a
    compiled graph it would break the graph.

    Raises:
        UserError: wrong shape, dtype or, on the CPU, class index.
    """
    check_class_shapes(logits, target, num_outputs)
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        check_class_range(target, logits.shape[1] if num_classes is None else num_classes)


def check_class_shapes(logits: Tensor, target: Tensor, num_outputs: int | None) -> None:
    """The part of ``check_class_target`` that reads no values."""
    shape = logits.shape
    if len(shape) != 2 or target.shape != shape[:1]:
        raise UserError(
            f"expected logits [B, C] and target [B], got logits {list(logits.shape)} and target {list(target.shape)}"
        )
    if shape[0] == 0:
        raise UserError("the batch is empty: a mean over no samples is undefined")
    if num_outputs is not None and shape[1] != num_outputs:
        raise UserError(f"the loss was built for {num_outputs} outputs, got logits {list(logits.shape)}")
    if target.dtype != torch.int64:
        raise UserError(f"target must be int64 class indices, got {target.dtype}")


def check_class_range(target: Tensor, num_classes: int) -> None:
    """Raise UserError unless every index in ``target`` is one of 0 … ``num_classes`` - 1. Reads values."""
    lowest, highest = torch.aminmax(target)
    low, high = lowest.item(), highest.item()
    if low < 0 or high >= num_classes:
        raise UserError(
            f"target holds class indices from {low} to {high}; the {num_classes} classes are 0 to {num_classes - 1}"
        )


def check_label_target(logits: Tensor, target: Tensor, num_outputs: int | None) -> None:
    """Check ``logits`` [B, K] against a multilabel ``target`` [B, K] of 0, 1 and NaN (unknown).

    Raises:
        UserError: wrong shape, an integer target, or, on the CPU outside ``torch.compile``, a value outside [0, 1].
    """
    if logits.dim() != 2 or logits.shape != target.shape:
        raise UserError(
            f"expected logits and target of the same shape [B, K], got logits {list(logits.shape)} "
            f"and target {list(target.shape)}"
        )
    if logits.shape[0] == 0:
        raise UserError("the batch is empty: a mean over no samples is undefined")
    if num_outputs is not None and logits.shape[1] != num_outputs:
        raise UserError(f"the loss was built for {num_outputs} labels, got logits {list(logits.shape)}")
    if not target.is_floating_point():
        raise UserError(f"a multilabel target must be floating point (NaN = unknown), got {target.dtype}")
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        lowest, highest = torch.aminmax(target.nan_to_num(0.0))
        low, high = lowest.item(), highest.item()
        if low < 0 or high > 1:
            raise UserError(f"a multilabel target holds 0, 1 and NaN (unknown); got values from {low:g} to {high:g}")


def check_counts(class_counts: Sequence[int] | Tensor, classes: Sequence[str] | None = None) -> Tensor:
    """``class_counts`` as float64 [C].

    Raises:
        UserError: fewer than two classes, or a count that isn't a positive finite number; names the class. A loss
            made from counts is undefined for a class without training images.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64).detach().cpu().clone()
    if counts.dim() != 1 or len(counts) < 2:
        raise UserError(f"class_counts must be a list of at least two counts, got shape {list(counts.shape)}")
    bad = (~(counts > 0) | ~torch.isfinite(counts)).nonzero().flatten().tolist()
    if bad:
        named = ", ".join(f"{classes[i] if classes else f'class {i}'}: {counts[i].item():g}" for i in bad)
        raise UserError(
            f"class counts must be positive, got {named}. A loss weighted by class counts needs at least one training "
            "image of each class: change the split, or use a loss without counts such as ce"
        )
    return counts


def check_class_weights(class_weights: Sequence[float] | Tensor | None, num_classes: int | None) -> Tensor | None:
    """``class_weights`` as float64 [C], or None. Raises UserError where one is negative, all are 0, or C differs."""
    if class_weights is None:
        return None
    weights = torch.as_tensor(class_weights, dtype=torch.float64).detach().cpu().clone()
    if weights.dim() != 1 or (num_classes is not None and len(weights) != num_classes):
        raise UserError(f"class_weights must have one value a class ({num_classes}), got shape {list(weights.shape)}")
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise UserError(f"class_weights must be finite, none negative and not all 0, got {weights.tolist()}")
    return weights


def reduce(loss: Tensor, reduction: Reduction) -> Tensor:
    """Mean or sum of a per-sample ``loss`` [B], or ``loss`` itself."""
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss
