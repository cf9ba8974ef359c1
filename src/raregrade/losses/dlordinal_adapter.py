"""dlordinal's ordinal losses by name, behind the interface of ``Loss``. The formulas are the library's."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from raregrade.errors import UserError
from raregrade.losses.base import Loss, check_class_target, check_range, raise_precision

DlordinalName = Literal["beta", "binomial", "exponential", "poisson", "triangular", "emd", "mce", "slace", "sord", "wk"]
DLORDINAL_LOSSES: tuple[DlordinalName, ...] = get_args(DlordinalName)

_SOFT_LABELS: dict[str, str] = {
    "beta": "BetaLoss",
    "binomial": "BinomialLoss",
    "exponential": "ExponentialLoss",
    "poisson": "PoissonLoss",
    "triangular": "TriangularLoss",
}


class DlordinalLoss(Loss):
    """A loss of dlordinal on softmax logits. The library reduces to the mean, and so does this.

    Args:
        name: ``beta``, ``binomial``, ``exponential``, ``poisson``, ``triangular``: cross-entropy with soft labels;
            ``emd`` squared earth mover's distance; ``mce`` mean squared error per class; ``slace``; ``sord``;
            ``wk`` weighted kappa.
        num_classes: K.
        eta: mixes the soft label (1) with the hard one (0).
        alpha: strength of ``slace`` and ``sord``.

    Raises:
        UserError: unknown name, a value out of range, or dlordinal isn't installed.
    """

    def __init__(self, name: DlordinalName, num_classes: int, *, eta: float = 1.0, alpha: float = 1.0) -> None:
        if name not in DLORDINAL_LOSSES:
            raise UserError(f"unknown dlordinal loss {name!r}; allowed: {', '.join(DLORDINAL_LOSSES)}")
        check_range("eta", eta, 0.0, 1.0)
        check_range("alpha", alpha, 0.0, float("inf"), open_low=True, open_high=True)
        super().__init__(num_classes)
        self.name = name
        self.loss = _library_loss(name, num_classes, eta, alpha)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, K], ``target`` int64 [B] -> scalar."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        with torch.autocast(logits.device.type, enabled=False):
            value: Tensor = self.loss(logits, target)
        return value.to(logits.dtype)


def _library_loss(name: DlordinalName, num_classes: int, eta: float, alpha: float) -> Any:
    try:
        from dlordinal import losses
    except ImportError as err:
        raise UserError(f"the loss dlordinal ({name}) needs dlordinal: pip install 'raregrade[losses]'") from err
    if name in _SOFT_LABELS:
        return getattr(losses, _SOFT_LABELS[name])(nn.CrossEntropyLoss(), num_classes, eta=eta)
    if name == "emd":
        return losses.EMDLoss(num_classes)
    if name == "mce":
        return losses.MCELoss(num_classes, use_logits=True)
    if name == "slace":
        return losses.SLACELoss(alpha, num_classes)
    if name == "sord":
        # Training targets shape its proximity variant alone, which isn't offered.
        return losses.SORDLoss(alpha, num_classes, train_targets=torch.arange(num_classes))
    return _prepared_kappa(losses.WKLoss(num_classes, use_logits=True))


def _prepared_kappa(loss: Any) -> Any:
    """Weighted kappa with its weights made now and kept as a buffer.

    The library makes them in the first forward pass, where it also refuses logits that happen to sum to 1, waits for
    the device, and ties the loss to that device.
    """
    loss._initialize(torch.empty(0), None)
    weights = loss.weights_
    del loss.weights_
    loss.register_buffer("weights_", weights, persistent=False)
    loss.first_forward_ = False
    return loss
