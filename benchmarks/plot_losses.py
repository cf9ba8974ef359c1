"""Draw loss and gradient against the logit gap into docs/figures, from the losses as they are.

python benchmarks/plot_losses.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from raregrade.labels import LabelSpace
from raregrade.losses import TrainingLabels
from raregrade.losses.balanced_softmax import BalancedSoftmax, BalancedSoftmaxLoss
from raregrade.losses.bce import AsymmetricBCE, AsymmetricBCELoss, BCELoss, FocalBCE, FocalBCELoss
from raregrade.losses.cdw_ce import CDWCE, CDWCELoss
from raregrade.losses.coral import CoralLoss
from raregrade.losses.corn import CornLoss
from raregrade.losses.cross_entropy import CrossEntropyLoss
from raregrade.losses.definition import Reduction
from raregrade.losses.focal import Focal, FocalLoss
from raregrade.losses.hbce import HBCE, HBCELoss
from raregrade.losses.ldam import LDAM, LDAMLoss
from raregrade.losses.lmf import LMF, LMFLoss

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
COUNTS = [865, 1254, 3052, 6105]  # class 0, the true one, is the rarest
PAIR = TrainingLabels(LabelSpace("multilabel", ("parent", "child"), (("parent", "child"),)))
TIGHTENED = CDWCE(power=5.0, margin=0.05, margin_form="tighten")
Curve = tuple[str, nn.Module, Callable[[Tensor], Tensor]]


def farthest_wrong(gap: Tensor) -> Tensor:
    """[N, 4] logits: the farthest class leads the true class 0 by the gap, the two between stay level with it."""
    zero = torch.zeros_like(gap)
    return torch.stack([zero, zero, zero, gap], 1)


def thresholds(gap: Tensor) -> Tensor:
    """[N, 3] logits: each threshold exceeded by the gap."""
    return gap[:, None].expand(-1, 3)


def child_of_absent_parent(gap: Tensor) -> Tensor:
    """[N, 2] logits of (parent, child): the parent predicted absent at -1, the child above it by the gap."""
    parent = torch.full_like(gap, -1.0)
    return torch.stack([parent, parent + gap], 1)


def value_and_gradient(loss: nn.Module, logits_of: Callable[[Tensor], Tensor], gap: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each gap, and its derivative by the gap."""
    gap = gap.clone().requires_grad_()
    logits = logits_of(gap)
    multilabel = loss.output == "sigmoid"
    target = torch.zeros_like(logits) if multilabel else torch.zeros(len(gap), dtype=torch.int64)
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value.sum(), gap)
    return value.detach(), gradient


def draw(name: str, title: str, curves: list[Curve], *, label: str, log: bool = False) -> None:
    gap = torch.linspace(-6, 12, 91, dtype=torch.float64)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    for i, (text, loss, logits_of) in enumerate(curves):
        value, gradient = value_and_gradient(loss, logits_of, gap)
        style = {"color": "black", "linewidth": 2.0} if i == 0 else {"color": f"C{i - 1}", "linewidth": 1.4}
        left.plot(gap, value, label=text, **style)
        right.plot(gap, gradient, **style)
    left.set(title=f"{title}: loss", xlabel=label)
    right.set(title="gradient by the gap", xlabel=label)
    if log:
        left.set(yscale="log", ylim=(1e-2, 1e4))
        right.set(yscale="log", ylim=(1e-2, 1e3))
    for axes in (left, right):
        axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    mpl.rcParams.update({"svg.hashsalt": "raregrade", "svg.fonttype": "none", "font.size": 9})
    FIGURES.mkdir(parents=True, exist_ok=True)
    none: Reduction = "none"
    entropy = ("cross-entropy", CrossEntropyLoss(4, reduction=none), farthest_wrong)
    gap = "logit of the farthest wrong class minus logit of the true class"
    draw(
        "imbalanced",
        "True class: the rarest",
        [
            entropy,
            ("focal, gamma 1.5", FocalLoss(Focal(gamma=1.5), reduction=none), farthest_wrong),
            ("LDAM, margin 0.5, scale 1", LDAMLoss(LDAM(scale=1.0), COUNTS, reduction=none), farthest_wrong),
            ("LMF, 1.5 LDAM + 1 focal, scale 1", LMFLoss(LMF(scale=1.0), COUNTS, reduction=none), farthest_wrong),
            ("balanced softmax", BalancedSoftmaxLoss(BalancedSoftmax(), COUNTS, reduction=none), farthest_wrong),
        ],
        label=gap,
    )
    draw(
        "ordinal",
        "True grade 0 of 0 … 3",
        [
            entropy,
            ("CDW-CE, power 1", CDWCELoss(CDWCE(power=1.0), reduction=none), farthest_wrong),
            ("CDW-CE, power 2", CDWCELoss(CDWCE(power=2.0), reduction=none), farthest_wrong),
            ("CDW-CE, power 5", CDWCELoss(CDWCE(power=5.0), reduction=none), farthest_wrong),
            (
                "CDW-CE, power 5, dead zone 0.05",
                CDWCELoss(CDWCE(power=5.0, margin=0.05), reduction=none),
                farthest_wrong,
            ),
            (
                "CDW-CE, power 5, tighten 0.05",
                CDWCELoss(TIGHTENED, reduction=none),
                farthest_wrong,
            ),
            ("CORAL, all thresholds", CoralLoss(4, reduction=none), thresholds),
            ("CORN, all thresholds", CornLoss(4, reduction=none), thresholds),
        ],
        label=gap,
        log=True,
    )
    draw(
        "multilabel",
        "Both labels absent",
        [
            ("binary cross-entropy", BCELoss(2, reduction=none), child_of_absent_parent),
            ("HBCE hard, penalty 0.5 (published)", HBCELoss(HBCE(), PAIR, reduction=none), child_of_absent_parent),
            (
                "HBCE soft, penalty 0.5 (ours)",
                HBCELoss(HBCE(mode="soft"), PAIR, reduction=none),
                child_of_absent_parent,
            ),
            ("focal, gamma 2", FocalBCELoss(FocalBCE(gamma=2.0), reduction=none), child_of_absent_parent),
            ("asymmetric, 4 / 1 / 0.05", AsymmetricBCELoss(AsymmetricBCE(), reduction=none), child_of_absent_parent),
        ],
        label="logit of the child minus logit of its absent parent (-1)",
    )


if __name__ == "__main__":
    main()
