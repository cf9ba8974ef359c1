"""The parameters of each loss as they stand under ``losses`` in params.yaml, with ranges and the tasks they fit.

The losses themselves live in ``raregrade.losses``; this module needs no torch, so that a wrong
parameter is refused before anything heavy is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from raregrade.config.base import ConfigModel
from raregrade.config.space import Choice, FloatRange, Scalar, Space
from raregrade.labels import Task

if TYPE_CHECKING:
    from raregrade.config.training import TrainConfig

SINGLE_LABEL: tuple[Task, ...] = ("multiclass", "ordinal")
ORDINAL: tuple[Task, ...] = ("ordinal",)
MULTILABEL: tuple[Task, ...] = ("multilabel",)


class LossParams(ConfigModel):
    """Base of the parameters of a loss.

    Attributes:
        tasks: the labels that the loss fits.
        SEARCH: what ``raregrade tune`` varies, by parameter; params.yaml can narrow, fix or widen it.
        PAPER: settings of the publication and its authors' code, which a search tries first.
    """

    tasks: ClassVar[tuple[Task, ...]]
    SEARCH: ClassVar[dict[str, Space]] = {}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ()

    def search(self) -> dict[str, Space]:
        """The part of ``SEARCH`` that changes anything under these settings."""
        return dict(self.SEARCH)

    @property
    def corrects_prior(self) -> bool:
        """Whether the loss, or a stage of it, makes up for the class frequencies that it is given.

        Margins by class counts (LDAM, LMF) do not: their authors combine them with class-balanced sampling.
        """
        return False

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """The part of the epochs that each stage of training gets; 0 trains nothing."""
        return (1.0,)

    def conflicts(self, key: str, train: TrainConfig) -> list[str]:
        """What of these settings makes no sense under ``train``; ``key`` is where they stand, ``losses.<name>``."""
        del key, train
        return []


class CrossEntropyParams(LossParams):
    """Cross-entropy, all classes alike."""

    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL


class WeightedCrossEntropyParams(LossParams):
    """Cross-entropy weighted by N / (C n_j) (``inverse``) or (1 - n_j / N) / (C - 1) (``complement``)."""

    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL
    weighting: Literal["inverse", "complement"] = "inverse"
    SEARCH: ClassVar[dict[str, Space]] = {"weighting": Choice(choices=("inverse", "complement"))}

    @property
    def corrects_prior(self) -> bool:
        return True


class EffectiveNumberParams(LossParams):
    """Cross-entropy weighted by effective numbers, arXiv 1901.05555."""

    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL
    beta: float = Field(0.9999, ge=0, lt=1)
    SEARCH: ClassVar[dict[str, Space]] = {"beta": Choice(choices=(0.9, 0.99, 0.999, 0.9999))}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"beta": 0.9999}, {"beta": 0.999})

    @property
    def corrects_prior(self) -> bool:
        return self.beta > 0


class BalancedSoftmaxParams(LossParams):
    """Balanced softmax, arXiv 2007.10740; with another ``tau`` logit adjustment, arXiv 2007.07314."""

    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL
    tau: float = Field(1.0, ge=0, le=10)
    SEARCH: ClassVar[dict[str, Space]] = {"tau": FloatRange(low=0.25, high=2.0)}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"tau": 1.0},)

    @property
    def corrects_prior(self) -> bool:
        return self.tau > 0


class FocalParams(LossParams):
    """Focal loss, arXiv 1708.02002. ``weighting: inverse`` adds the class weights N / (C n_j)."""

    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL
    gamma: float = Field(1.5, ge=0, le=20)
    weighting: Literal["none", "inverse"] = "none"
    SEARCH: ClassVar[dict[str, Space]] = {
        "gamma": FloatRange(low=0.5, high=5.0),
        "weighting": Choice(choices=("none", "inverse")),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"gamma": 2.0, "weighting": "none"},)

    @property
    def corrects_prior(self) -> bool:
        return self.weighting == "inverse"


class LDAMParams(LossParams):
    """Label-distribution-aware margins, arXiv 1906.07413."""

    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL
    max_margin: float = Field(0.5, ge=0, le=10)
    scale: float = Field(30.0, gt=0, le=1000)
    head: Literal["cosine", "linear"] = "cosine"
    SEARCH: ClassVar[dict[str, Space]] = {
        "max_margin": FloatRange(low=0.1, high=0.8),
        "scale": FloatRange(low=1.0, high=30.0, log=True),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"max_margin": 0.5, "scale": 30.0},)


class DRWParams(LDAMParams):
    """LDAM with effective-number weights from ``start`` of the epochs on (deferred re-weighting)."""

    beta: float = Field(0.9999, ge=0, lt=1)
    start: float = Field(0.8, ge=0, le=1)
    SEARCH: ClassVar[dict[str, Space]] = {
        **LDAMParams.SEARCH,
        "beta": Choice(choices=(0.9, 0.99, 0.999, 0.9999)),
        "start": FloatRange(low=0.5, high=0.9),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"max_margin": 0.5, "scale": 30.0, "beta": 0.9999, "start": 0.8},)

    @property
    def corrects_prior(self) -> bool:
        return self.beta > 0

    def conflicts(self, key: str, train: TrainConfig) -> list[str]:
        if train.epochs - 1 >= self.start * train.epochs:  # as DRWLoss.set_epoch counts
            return []
        last = f"{key}.start to {1 - 1 / train.epochs:.3g} at most" if train.epochs > 1 else f"{key}.start=0"
        return [
            f"{key}.start = {self.start:g}: with train.epochs = {train.epochs} no epoch begins after so much of the "
            f"training, and classes would never be weighted. Set {last}, or train longer"
        ]


class LMFParams(LDAMParams):
    """Large margin aware focal loss, arXiv 2212.12741."""

    alpha: float = Field(1.5, ge=0, le=1000)
    beta: float = Field(1.0, ge=0, le=1000)
    gamma: float = Field(1.5, ge=0, le=20)
    weighting: Literal["none", "margin"] = "none"
    SEARCH: ClassVar[dict[str, Space]] = {
        **LDAMParams.SEARCH,
        "alpha": FloatRange(low=0.1, high=2.0, log=True),
        "beta": FloatRange(low=0.1, high=2.0, log=True),
        "gamma": FloatRange(low=0.5, high=3.0),
    }
    # The authors' example configuration, and the defaults of their class.
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = (
        {"alpha": 1.5, "beta": 1.0, "gamma": 1.5, "max_margin": 0.5, "scale": 30.0},
        {"alpha": 1.0, "beta": 1.0, "gamma": 1.5, "max_margin": 0.5, "scale": 30.0},
    )

    @property
    def corrects_prior(self) -> bool:
        return self.weighting == "margin"


class CDWCEParams(LossParams):
    """Class distance weighted cross-entropy, arXiv 2202.05167; margin of arXiv 2412.01246."""

    tasks: ClassVar[tuple[Task, ...]] = ORDINAL
    power: float = Field(5.0, gt=0, le=20)
    margin: float = Field(0.0, ge=0, lt=1)
    margin_form: Literal["dead_zone", "tighten"] = "dead_zone"
    # The margin is searched where params.yaml names it: the published formula has two readings.
    SEARCH: ClassVar[dict[str, Space]] = {"power": FloatRange(low=0.5, high=10.0)}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"power": 5.0}, {"power": 6.0}, {"power": 7.0})


class CoralParams(LossParams):
    """CORAL: one score, K - 1 ordered thresholds, arXiv 1901.07884."""

    tasks: ClassVar[tuple[Task, ...]] = ORDINAL


class CornParams(LossParams):
    """CORN: K - 1 conditional probabilities, arXiv 2111.08851."""

    tasks: ClassVar[tuple[Task, ...]] = ORDINAL


class DlordinalParams(LossParams):
    """An ordinal loss of the dlordinal library; needs the extra ``raregrade[losses]``.

    ``eta`` mixes the soft label of beta, binomial, exponential, poisson and triangular with the hard one; ``alpha``
    is the strength of slace and sord.
    """

    tasks: ClassVar[tuple[Task, ...]] = ORDINAL
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


class TwoStageParams(LossParams):
    """Representation with a metric loss, then a rebalanced head on the frozen backbone, after arXiv 2207.06975."""

    tasks: ClassVar[tuple[Task, ...]] = SINGLE_LABEL
    metric: Literal["batch_hard", "semi_hard", "supcon", "npairs", "class_center"] = "batch_hard"
    metric_weight: float = Field(0.5, ge=0, le=100)
    margin: float = Field(0.2, ge=0, le=2)
    temperature: float = Field(0.1, gt=0, le=10)
    images_per_class: int = Field(4, ge=2, le=1024)
    classifier: Literal["crt", "balanced_softmax", "tau_norm", "lws"] = "crt"
    tau: float = Field(1.0, ge=0, le=2)
    classifier_share: float = Field(0.3, gt=0, lt=1)
    SEARCH: ClassVar[dict[str, Space]] = {
        "metric_weight": FloatRange(low=0.05, high=5.0, log=True),
        "margin": FloatRange(low=0.05, high=1.0),
        "temperature": FloatRange(low=0.05, high=1.0, log=True),
    }

    def search(self) -> dict[str, Space]:
        unused = {"supcon": ["margin"], "npairs": ["margin", "temperature"]}.get(self.metric, ["temperature"])
        return {name: space for name, space in self.SEARCH.items() if name not in unused}

    @property
    def corrects_prior(self) -> bool:
        return True

    @property
    def stage_shares(self) -> tuple[float, ...]:
        share = 0.0 if self.classifier == "tau_norm" else self.classifier_share
        return (1.0 - share, share)

    def conflicts(self, key: str, train: TrainConfig) -> list[str]:
        images = train.batch_size // train.accumulate
        if self.metric_weight == 0 or images >= 2 * self.images_per_class:
            return []
        passes = f" in {train.accumulate} forward passes" if train.accumulate > 1 else ""
        most = f"Set {key}.images_per_class={images // 2} or less, or" if images >= 4 else "Set"
        return [
            f"{key}.images_per_class = {self.images_per_class}: train.batch_size = {train.batch_size}{passes} doesn't "
            f"hold two classes of so many images, which a metric loss compares. {most} "
            f"train.batch_size={2 * self.images_per_class * train.accumulate} or more"
        ]


class BCEParams(LossParams):
    """Binary cross-entropy, all labels alike."""

    tasks: ClassVar[tuple[Task, ...]] = MULTILABEL


class WeightedBCEParams(LossParams):
    """Binary cross-entropy whose positive term weighs (negatives / positives) of the label, at most ``max_weight``."""

    tasks: ClassVar[tuple[Task, ...]] = MULTILABEL
    max_weight: float = Field(100.0, ge=1, le=1e6)
    SEARCH: ClassVar[dict[str, Space]] = {"max_weight": FloatRange(low=2.0, high=100.0, log=True)}

    @property
    def corrects_prior(self) -> bool:
        return self.max_weight > 1


class FocalBCEParams(LossParams):
    """Binary focal loss, arXiv 1708.02002."""

    tasks: ClassVar[tuple[Task, ...]] = MULTILABEL
    gamma: float = Field(2.0, ge=0, le=20)
    SEARCH: ClassVar[dict[str, Space]] = {"gamma": FloatRange(low=0.5, high=5.0)}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"gamma": 2.0},)


class AsymmetricParams(LossParams):
    """Asymmetric loss, arXiv 2009.14119."""

    tasks: ClassVar[tuple[Task, ...]] = MULTILABEL
    gamma_negative: float = Field(4.0, ge=0, le=20)
    gamma_positive: float = Field(1.0, ge=0, le=20)
    clip: float = Field(0.05, ge=0, lt=1)
    SEARCH: ClassVar[dict[str, Space]] = {
        "gamma_negative": FloatRange(low=0.0, high=6.0),
        "gamma_positive": FloatRange(low=0.0, high=2.0),
        "clip": FloatRange(low=0.0, high=0.2),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"gamma_negative": 4.0, "gamma_positive": 1.0, "clip": 0.05},)


def _nested_penalties(value: Any) -> Any:
    """``{(parent, child): p}`` as ``{parent: {child: p}}``, the form that YAML can hold."""
    if not isinstance(value, dict) or not any(isinstance(key, tuple) for key in value):
        return value
    nested: dict[Any, dict[Any, Any]] = {}
    for key, penalty in value.items():
        if not isinstance(key, tuple) or len(key) != 2:
            raise ValueError(f"{key!r} is not a (parent, child) pair")
        nested.setdefault(key[0], {})[key[1]] = penalty
    return nested


class HBCEParams(LossParams):
    """Hierarchical binary cross-entropy, arXiv 2502.03591.

    ``penalty``: one number for every edge, ``data_driven``, or ``{parent: {child: number}}`` with every edge.
    """

    tasks: ClassVar[tuple[Task, ...]] = MULTILABEL
    penalty: Annotated[
        Annotated[float, Field(ge=0)] | Literal["data_driven"] | dict[str, dict[str, Annotated[float, Field(ge=0)]]],
        BeforeValidator(_nested_penalties),
    ] = 0.5
    mode: Literal["hard", "soft"] = "hard"
    scale: float = Field(1.0, ge=0, le=1000)
    # The hard penalty has no gradient: whatever its size, it trains as plain BCE does. So the mode is searched too.
    SEARCH: ClassVar[dict[str, Space]] = {
        "penalty": FloatRange(low=0.05, high=5.0, log=True),
        "scale": FloatRange(low=0.1, high=10.0, log=True),
        "mode": Choice(choices=("hard", "soft")),
    }
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ({"penalty": 0.5, "mode": "hard"},)

    def search(self) -> dict[str, Space]:
        """``scale`` multiplies data-driven penalties and no other."""
        without = "penalty" if self.penalty == "data_driven" or isinstance(self.penalty, dict) else "scale"
        unused = {without, "scale"} if isinstance(self.penalty, dict) else {without}
        return {name: space for name, space in self.SEARCH.items() if name not in unused}


LOSS_PARAMS: dict[str, type[LossParams]] = {
    "ce": CrossEntropyParams,
    "weighted_ce": WeightedCrossEntropyParams,
    "effective_number": EffectiveNumberParams,
    "balanced_softmax": BalancedSoftmaxParams,
    "focal": FocalParams,
    "ldam": LDAMParams,
    "drw": DRWParams,
    "lmf": LMFParams,
    "two_stage": TwoStageParams,
    "cdw_ce": CDWCEParams,
    "coral": CoralParams,
    "corn": CornParams,
    "dlordinal": DlordinalParams,
    "bce": BCEParams,
    "weighted_bce": WeightedBCEParams,
    "focal_bce": FocalBCEParams,
    "asymmetric_bce": AsymmetricParams,
    "hbce": HBCEParams,
}
