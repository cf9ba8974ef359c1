"""What every loss says of itself, without torch: parameters, labels that it fits, search space, head and stages.

A loss is one file beside this one: a ``LossDefinition``, whose fields are its parameters, and an ``nn.Module`` with the
formula. The names under which params.yaml knows them stand in ``raregrade.losses.registry``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from pydantic import ValidationError

from raregrade.errors import ConfigError
from raregrade.labels import LabelSpace, LabelStatistics, Task
from raregrade.schema import ConfigModel, Scalar, Space

if TYPE_CHECKING:
    from raregrade.losses.base import Loss

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "none")
SINGLE_LABEL: tuple[Task, ...] = ("multiclass", "ordinal")
ORDINAL: tuple[Task, ...] = ("ordinal",)
MULTILABEL: tuple[Task, ...] = ("multilabel",)


@dataclass(frozen=True)
class HeadSpec:
    """The classification head that a loss expects.

    ``linear`` returns w·f + b; ``cosine`` returns ``scale`` * cos(w, f), so its logits lie in [-scale, scale];
    ``coral`` returns w·f + b_k, one weight vector for all outputs. ``raregrade.models.heads.create_head`` builds them.
    """

    kind: Literal["linear", "cosine", "coral"] = "linear"
    scale: float = 1.0


@dataclass(frozen=True)
class Stage:
    """What a stage of training asks of the training loop.

    Attributes:
        name: for logs.
        share: part of the epochs, 0 to 1; a stage of 0 changes the head and trains nothing.
        sampler: ``shuffle`` (whatever the training configuration says), ``class_balanced``, or ``pk``: batches of
            at least ``images_per_class`` images of each of several classes.
        freeze_backbone: the backbone doesn't change: no gradients, BatchNorm statistics fixed, no dropout.
        head: what happens to the head as the stage begins: ``keep``, ``new`` (initialised again), ``scale`` (frozen, a
            learnable factor for each class), ``tau_normalise`` (weights divided by their length to the power ``tau``).
    """

    name: str
    share: float = 1.0
    sampler: Literal["shuffle", "class_balanced", "pk"] = "shuffle"
    images_per_class: int | None = None
    freeze_backbone: bool = False
    head: Literal["keep", "new", "scale", "tau_normalise"] = "keep"
    tau: float = 1.0


@dataclass(frozen=True)
class TrainingLabels:
    """What a loss may know of the labels that it trains on.

    Attributes:
        space: task, classes, hierarchy.
        class_counts: images of each class, [K].
        statistics: counts over pairs of labels as well.
    """

    space: LabelSpace
    class_counts: Sequence[int] | None = None
    statistics: LabelStatistics | None = None

    @property
    def num_classes(self) -> int:
        return self.space.num_classes

    def counts(self) -> list[int]:
        """Images of each class, all positive. Raises UserError naming the classes that have none."""
        from raregrade.losses.base import check_counts

        if self.class_counts is None:
            raise ConfigError("needs the class counts of the training images; give class_counts")
        if len(self.class_counts) != self.num_classes:
            raise ConfigError(f"{len(self.class_counts)} class counts for {self.num_classes} classes")
        check_counts(self.class_counts, self.space.classes)
        return [int(count) for count in self.class_counts]

    def count_statistics(self) -> LabelStatistics:
        """As ``statistics``. Raises ConfigError where they are unknown."""
        if self.statistics is None:
            raise ConfigError("needs the statistics of the training labels; give statistics")
        return self.statistics


class TrainingSettings(Protocol):
    """What a loss may object to in the section ``train`` of params.yaml."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def accumulate(self) -> int: ...


class LossDefinition(ConfigModel):
    """Base of the definitions. The fields of a subclass are its parameters, with range and default.

    Where the formula fits into a few plain lines, a definition also has ``reference(logits, target, labels)``, its
    mean: tests hold the loss against it in value and gradient.

    Attributes:
        tasks: the labels that the loss fits.
        SEARCH: what ``raregrade tune`` varies, by parameter; params.yaml can narrow, fix or widen it.
        PAPER: settings of the publication and its authors' code, which a search tries first.
    """

    tasks: ClassVar[tuple[Task, ...]]
    SEARCH: ClassVar[dict[str, Space]] = {}
    PAPER: ClassVar[tuple[dict[str, Scalar], ...]] = ()

    @classmethod
    def checked(cls, settings: Mapping[str, Any], name: str = "") -> Self:
        """The definition with ``settings``; ``name`` goes before each parameter in an error.

        Raises:
            ConfigError: an unknown parameter or a value out of range.
        """
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as err:
            raise ConfigError("\n".join(cls._describe(error, name) for error in err.errors())) from err

    @classmethod
    def _describe(cls, error: Any, name: str) -> str:
        key = ".".join([*([name] if name else []), *map(str, error["loc"])])
        if error["type"] == "extra_forbidden":
            return f"{key}: unknown parameter; allowed: {', '.join(cls.model_fields) or 'none'}"
        return f"{key} = {error['input']!r}: {error['msg']}"

    @abstractmethod
    def build(self, labels: TrainingLabels, reduction: Reduction = "mean") -> Loss:
        """The loss for these labels.

        Raises:
            UserError: the labels lack what the loss needs, such as images of each class.
        """

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
    def stages(self) -> tuple[Stage, ...]:
        """The stages of training."""
        return (Stage("train"),)

    @property
    def stage_shares(self) -> tuple[float, ...]:
        """The part of the epochs that each stage of training gets; 0 trains nothing."""
        return tuple(stage.share for stage in self.stages)

    def conflicts(self, key: str, train: TrainingSettings) -> list[str]:
        """What of these settings makes no sense under ``train``; ``key`` is where they stand, ``losses.<name>``."""
        del key, train
        return []
