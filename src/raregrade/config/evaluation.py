"""The sections ``evaluate`` and ``compare`` of params.yaml: how probabilities are decided, and what is compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raregrade.labels import LabelSpace
from raregrade.schema import ConfigModel

DecisionName = Literal["own", "argmax", "median", "expected_cost", "best", "f1", "youden", "sensitivity"]
# The decision rules that each task can be given.
DECISIONS: dict[str, tuple[DecisionName, ...]] = {
    "ordinal": ("own", "argmax", "median", "expected_cost", "best"),
    "multiclass": ("own", "argmax", "expected_cost", "best"),
    "multilabel": ("own", "f1", "youden", "sensitivity"),
}


Share = Annotated[float, Field(gt=0, lt=1)]


class EvaluateConfig(ConfigModel):
    """How a model is judged.

    Attributes:
        decision: how probabilities become grades. ``own`` is the rule that belongs to the loss; ``argmax``, ``median``
            and ``expected_cost`` are one rule for all losses; ``best`` chooses among these for each model on validation
            patients; ``f1``, ``youden`` and ``sensitivity`` fit one threshold per label on validation patients.
        costs: for ``expected_cost``: costs[i][j] is the cost of predicting class j for an image of class i.
        sensitivity: for ``sensitivity``: the share of images with a label that is to be found, one for all labels or a
            mapping of labels; a label that the mapping leaves out keeps the threshold one half.
    """

    batch_size: int = Field(256, ge=1, le=65_536)
    decision: DecisionName = "own"
    costs: list[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]] | None = None
    sensitivity: Share | dict[str, Share] | None = None

    @model_validator(mode="after")
    def _rules_have_their_numbers(self) -> EvaluateConfig:
        if self.decision == "expected_cost" and self.costs is None:
            raise ValueError("costs: decision expected_cost needs a matrix of costs, one row a true class")
        if (self.decision == "sensitivity") != (self.sensitivity is not None):
            raise ValueError("sensitivity: give it with decision sensitivity, and with no other")
        return self

    def problems(self, label_space: LabelSpace) -> list[str]:
        """What contradicts the labels, one message each."""
        found = []
        allowed = DECISIONS[label_space.task]
        if self.decision not in allowed:
            found.append(
                f"evaluate.decision: {self.decision} is no rule for task {label_space.task}; allowed: "
                f"{', '.join(allowed)}"
            )
        k = label_space.num_classes
        if self.costs is not None:
            if label_space.task == "multilabel":
                found.append("evaluate.costs: task multilabel decides each label by itself; take decision sensitivity")
            elif len(self.costs) != k or any(len(row) != k for row in self.costs):
                shape = f"{len(self.costs)} rows of {', '.join(str(len(row)) for row in self.costs)}"
                found.append(f"evaluate.costs: {k} classes need {k} rows of {k} costs, got {shape}")
            elif any(self.costs[i][i] >= min(self.costs[i][:i] + self.costs[i][i + 1 :]) for i in range(k)):
                found.append("evaluate.costs: the right class must cost less than every wrong one, in each row")
        if isinstance(self.sensitivity, dict):
            unknown = [name for name in self.sensitivity if name not in label_space.classes]
            if unknown or not self.sensitivity:
                found.append(
                    f"evaluate.sensitivity: {', '.join(unknown) or 'no label'} given; labels: "
                    f"{', '.join(label_space.classes)}"
                )
        return found

    def wanted_sensitivity(self, label: str) -> float | None:
        """The share of images with ``label`` that is to be found; None where the settings want none."""
        return self.sensitivity.get(label) if isinstance(self.sensitivity, dict) else self.sensitivity


Seed = Annotated[int, Field(ge=0, lt=2**31)]


class CompareConfig(ConfigModel):
    """Which losses run with which seeds, against which baseline, and how sure a claim has to be.

    Attributes:
        losses: what is trained and compared.
        seeds: of every loss; what DVC and the pipelines train.
        seeds_of: other seeds for single losses, where ``raregrade compare`` is given reports of trainings by hand.
        baseline: the loss that a claim compares with.
        confidence: of intervals; 1 - confidence is the two-sided level of the test.
    """

    losses: list[str] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    seeds_of: dict[str, Annotated[list[Seed], Field(min_length=1)]] = Field(default_factory=dict)
    baseline: str
    confidence: float = Field(0.95, gt=0.5, lt=1)

    def seeds_for(self, loss: str) -> list[int]:
        """The seeds that ``loss`` is compared with."""
        return self.seeds_of.get(loss, self.seeds)
