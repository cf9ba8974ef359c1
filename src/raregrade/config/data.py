"""The ``data:`` section of params.yaml: where raw images lie, what their labels mean, and how they are split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from raregrade.errors import DataError
from raregrade.labels import LabelSpace
from raregrade.names import normalised
from raregrade.schema import ConfigModel

# What stops `prepare` and fails `verify` unless it is waived, with a reason, under data.waive.
WAIVABLE = ("ungrouped", "identical_across_splits", "conflicting_labels")


class SplitConfig(ConfigModel):
    """How groups (patients, lesions) are dealt to train, val and test. ``column`` takes an existing split."""

    val: float = Field(0.15, gt=0, lt=0.5)
    test: float = Field(0.15, gt=0, lt=0.5)
    folds: int = Field(5, ge=2, le=20)
    column: str | None = None


class DataConfig(ConfigModel):
    """Where the raw images lie and what their labels mean.

    ``image_folder`` (relative to ``path``) and ``image_suffix`` (".png") complete the names in ``image_column``.
    ``label_separator`` ("|") says that one column holds the names of all classes of an image; ``negative_names`` are
    then names that stand for none of the classes ("No Finding"). ``uncertain`` is what -1 means in a column of 0 and 1,
    ``blank`` what an empty cell means; ``ignore`` leaves the label out of losses and metrics.
    ``waive`` accepts a finding that would else stop ``prepare``; its reason is kept in the dataset and shown.
    """

    source: Literal["phantom", "folder", "medmnist"]
    path: str = Field(min_length=1)
    task: Literal["multiclass", "ordinal", "multilabel"]
    classes: list[str] = Field(min_length=1)
    hierarchy: list[list[str]] = Field(default_factory=list)
    image_size: int = Field(64, ge=16, le=1024)
    color: Literal["rgb", "grey"] = "rgb"
    table: str = "labels.csv"
    image_column: str = "filename"
    image_folder: str = ""
    image_suffix: str = ""
    label_column: str | list[str] | None = None
    label_separator: str | None = None
    negative_names: list[str] = Field(default_factory=list)
    uncertain: Literal["refuse", "zeros", "ones", "ignore"] = "refuse"
    blank: Literal["ignore", "zeros", "refuse"] = "ignore"
    group_column: str | None = None
    licence: str = ""
    split: SplitConfig = SplitConfig()
    waive: dict[str, str] = Field(default_factory=dict)

    @field_validator("classes")
    @classmethod
    def _composed(cls, classes: list[str]) -> list[str]:
        """As ``LabelSpace`` has them: an accent written in two code points is the same name."""
        return [normalised(name) for name in classes]

    @field_validator("label_separator")
    @classmethod
    def _written(cls, separator: str | None) -> str | None:
        if separator is not None and not separator.strip():
            raise ValueError('is blank; YAML needs quotes around a vertical bar: "|"')
        return separator

    @field_validator("hierarchy")
    @classmethod
    def _composed_edges(cls, hierarchy: list[list[str]]) -> list[list[str]]:
        return [[normalised(name) for name in edge] for edge in hierarchy]

    @model_validator(mode="after")
    def _labels_make_sense(self) -> DataConfig:
        for edge in self.hierarchy:
            if len(edge) != 2:
                raise ValueError(f"hierarchy: {edge!r} is not a [parent, child] pair")
        try:
            self.label_space()
        except DataError as err:
            raise ValueError(str(err)) from err
        if self.task != "multilabel" and isinstance(self.label_column, list):
            raise ValueError(f"label_column: task {self.task} takes one column, got {self.label_column!r}")
        if self.task == "multilabel" and isinstance(self.label_column, str) and not self.label_separator:
            raise ValueError(
                f"label_column: task multilabel takes a list of columns, got {self.label_column!r}; where one column "
                "names all classes of an image, set data.label_separator"
            )
        if isinstance(self.label_column, list) and len(self.label_column) != len(self.classes):
            raise ValueError(
                f"label_column: {len(self.label_column)} columns for {len(self.classes)} classes; give one a class"
            )
        return self

    @model_validator(mode="after")
    def _label_cells_make_sense(self) -> DataConfig:
        if self.label_separator and (self.task != "multilabel" or not isinstance(self.label_column, str)):
            raise ValueError(
                "label_separator: needs task multilabel and one label_column, whose cells name the classes"
            )
        if self.negative_names and not self.label_separator:
            raise ValueError("negative_names: has a meaning only with label_separator")
        both = [name for name in map(normalised, self.negative_names) if name in self.classes]
        if both:
            raise ValueError(f"negative_names: {both[0]!r} is one of classes")
        if self.task != "multilabel" and (self.uncertain, self.blank) != ("refuse", "ignore"):
            raise ValueError(f"uncertain, blank: have a meaning only for task multilabel, not {self.task}")
        if self.label_separator and self.uncertain != "refuse":
            raise ValueError("uncertain: has a meaning only for columns of 0 and 1, not with label_separator")
        columns = self.label_column if isinstance(self.label_column, list) else []
        doubles = sorted({c for c in columns if columns.count(c) > 1})
        if doubles:
            raise ValueError(
                f"label_column: {doubles[0]!r} is given more than once; where one column names all classes of an "
                f"image, set label_column: {doubles[0]!r} and label_separator"
            )
        return self

    @model_validator(mode="after")
    def _waived_with_a_reason(self) -> DataConfig:
        for kind, reason in self.waive.items():
            if kind not in WAIVABLE:
                raise ValueError(f"waive: {kind!r} is nothing that can be waived; allowed: {', '.join(WAIVABLE)}")
            if not normalised(reason):
                raise ValueError(f"waive.{kind}: give the reason, which the dataset, reports and comparisons then show")
        return self

    def label_space(self) -> LabelSpace:
        return LabelSpace(self.task, tuple(self.classes), tuple((p, c) for p, c in self.hierarchy))
