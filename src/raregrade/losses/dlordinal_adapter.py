"""dlordinal's ordinal losses by name, behind the interface of ``Loss``. The formulas are the library's."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raregrade.errors import ConfigError, UserError
from raregrade.losses.base import Loss, check_class_target, raise_precision
from raregrade.losses.definition import ORDINAL, LossDefinition, Reduction, TrainingLabels
from raregrade.schema import FloatRange, Space

_SOFT_LABELS: dict[str, str] = {
    "beta": "BetaLoss",
    "binomial": "BinomialLoss",
    "exponential": "ExponentialLoss",
    "poisson": "PoissonLoss",
    "triangular": "TriangularLoss",
}


class Dlordinal(LossDefinition):
    """An ordinal loss of the dlordinal library; needs the extra ``raregrade[losses]``.

    ``beta``, ``binomial``, ``exponential``, ``poisson``, ``triangular``: cross-entropy with soft labels, which ``eta``
    mixes (1) with the hard one (0). ``emd``: squared earth mover's distance. ``mce``: mean squared error per class.
    ``slace``, ``sord``: ``alpha`` is their strength. ``wk``: weighted kappa.
    """

    tasks = ORDINAL
    loss: Literal["beta", "binomial", "exponential", "poisson", "triangular", "emd", "mce", "slace", "sord", "wk"] = (
        "emd"
    )
    eta: float = Field(1.0, ge=0, le=1)
    alpha: float = Field(1.0, gt=0, le=100)
    SEARCH: ClassVar[dict[str, Space]] = {
        "eta": FloatRange(low=0.1, high=1.0),
        "alpha": FloatRange(low=0.1, high=10.0, log=True),
    }

    def search(self) -> dict[str, Space]:
        if self.loss in ("slace", "sord"):
            return {"alpha": self.SEARCH["alpha"]}
        return {} if self.loss in ("emd", "mce", "wk") else {"eta": self.SEARCH["eta"]}

    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> DlordinalLoss:
        if reduction != "mean":
            raise ConfigError(f"dlordinal's losses have the reduction mean alone, got {reduction!r}")
        return DlordinalLoss(self, labels.num_classes)

    def reference(self, logits: Tensor, target: Tensor, labels: TrainingLabels) -> Tensor:
        """The library's own."""
        value: Tensor = _library_loss(self, labels.num_classes)(logits, target)
        return value


class DlordinalLoss(Loss):
    """A loss of dlordinal on softmax logits. The library reduces to the mean, and so does this.

    Raises:
        UserError: dlordinal isn't installed.
    """

    def __init__(self, params: Dlordinal, num_classes: int) -> None:
        super().__init__(num_classes)
        self.loss = _library_loss(params, num_classes)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` [B, K], ``target`` int64 [B] -> scalar."""
        check_class_target(logits, target, self._num_outputs)
        logits = raise_precision(logits)
        with torch.autocast(logits.device.type, enabled=False):
            value: Tensor = self.loss(logits, target)
        return value.to(logits.dtype)


def _library_loss(params: Dlordinal, num_classes: int) -> Any:
    name = params.loss
    try:
        from dlordinal import losses
    except ImportError as err:
        raise UserError(f"the loss dlordinal ({name}) needs dlordinal: pip install 'raregrade[losses]'") from err
    if name in _SOFT_LABELS:
        return getattr(losses, _SOFT_LABELS[name])(nn.CrossEntropyLoss(), num_classes, eta=params.eta)
    if name == "emd":
        return losses.EMDLoss(num_classes)
    if name == "mce":
        return losses.MCELoss(num_classes, use_logits=True)
    if name == "slace":
        return losses.SLACELoss(params.alpha, num_classes)
    if name == "sord":
        # Training targets shape its proximity variant alone, which isn't offered.
        return losses.SORDLoss(params.alpha, num_classes, train_targets=torch.arange(num_classes))
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
