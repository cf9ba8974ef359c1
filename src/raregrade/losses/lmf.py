"""LMF: the large margin aware focal loss, alpha * LDAM + beta * focal (Sadi et al., arXiv 2212.12741)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional

from raregrade.errors import UserError
from raregrade.losses.base import HeadSpec, Loss, Reduction, check_class_target, check_range, raise_precision, reduce
from raregrade.losses.focal import focal_terms
from raregrade.losses.ldam import LDAMLoss, ldam_margins

WEIGHTINGS = ("none", "margin")


class LMFLoss(Loss):
    """alpha * LDAM(z, y) + beta * Focal(z, y) on the same logits.

    Args:
        class_counts: n_j of the training images, all positive.
        alpha: weighs LDAM.
        beta: weighs focal.
        gamma: focusing power of focal.
        max_margin: LDAM margin of the rarest class.
        scale: LDAM scale s.
        weighting: ``margin`` uses the LDAM margins as class weights in both terms, as the authors' code does (LDAM's
            mean is then divided by the sum of weights, focal's by B); ``none`` weighs all classes alike.
        logit_scale: factor that the logits already carry, see ``LDAMLoss``. Focal sees the logits as they are.
    """

    def __init__(  # noqa: PLR0917 - by position as the formula has them
        self,
        class_counts: Sequence[int] | Tensor,
        alpha: float = 1.5,
        beta: float = 1.0,
        gamma: float = 1.5,
        max_margin: float = 0.5,
        scale: float = 30.0,
        weighting: Literal["none", "margin"] = "none",
        *,
        logit_scale: float = 1.0,
        head: HeadSpec | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            check_range(name, value, 0.0, float("inf"), open_high=True)
        if weighting not in WEIGHTINGS:
            raise UserError(f"weighting {weighting!r} is unknown; allowed: {', '.join(WEIGHTINGS)}")
        weights = ldam_margins(class_counts, max_margin) if weighting == "margin" else None
        ldam = LDAMLoss(class_counts, max_margin, scale, weights, logit_scale=logit_scale, reduction=reduction)
        super().__init__(ldam.num_outputs, head=head, reduction=reduction)
        self.ldam = ldam
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, C], ``target`` int64 [B] -> scalar, or [B] for ``none``."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        weights = self.ldam.optional_constant("class_weights", logits.dtype)
        margin_term = functional.cross_entropy(
            self.ldam.shifted(logits, target), target, weights, reduction=self.reduction
        )
        focal = focal_terms(logits, target, self.gamma)
        if weights is not None:
            focal = focal * weights.index_select(0, target)
        return self.alpha * margin_term + self.beta * reduce(focal, self.reduction)
