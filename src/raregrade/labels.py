"""What the labels of a dataset are: task, class names in order, hierarchy.

Also how labels, probabilities and logits are named in tables, and the counts over training labels
that losses need. Nothing here knows about images, models or files other than JSON. Needs numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from raregrade.errors import DataError
from raregrade.names import normalised, number

Task = Literal["multiclass", "ordinal", "multilabel"]
TASKS: tuple[Task, ...] = ("multiclass", "ordinal", "multilabel")


@dataclass(frozen=True)
class LabelSpace:
    """Task, class names and hierarchy of a dataset.

    Args:
        task: ``ordinal`` and ``multiclass`` have one label per image, ``multilabel`` one 0/1 label per class.
        classes: names; for ``ordinal`` from the lowest grade to the highest. Never sorted. Kept in Unicode's composed
            form and without blanks at their ends, since tables are compared so.
        edges: (parent, child) pairs of a directed acyclic graph, ``multilabel`` only.

    Raises:
        DataError: unknown task, fewer than two classes, a name that is empty or there twice (also as the same number:
            "1" and "1.0"), an edge to an unknown class or given twice, a cycle.
    """

    task: Task
    classes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(normalised(c) for c in self.classes))
        object.__setattr__(self, "edges", tuple((normalised(p), normalised(c)) for p, c in self.edges))
        if self.task not in TASKS:
            raise DataError(f"unknown task {self.task!r}; allowed: {', '.join(TASKS)}")
        least = 1 if self.task == "multilabel" else 2
        if len(self.classes) < least:
            raise DataError(f"task {self.task} needs at least {least} classes, got {list(self.classes)}")
        doubles = sorted({c for c in self.classes if self.classes.count(c) > 1})
        if doubles:
            raise DataError(f"class names must be unique; given more than once: {', '.join(doubles)}")
        if "" in self.classes:
            raise DataError(f"class {self.classes.index('')} has an empty name; give every class a name")
        self._check_numbers()
        if self.edges and self.task != "multilabel":
            raise DataError(f"a hierarchy needs task multilabel, got task {self.task}")
        graph: dict[str, set[str]] = {}
        for parent, child in self.edges:
            for name in (parent, child):
                if name not in self.classes:
                    raise DataError(
                        f"hierarchy edge {parent} -> {child}: {name!r} is not a class; "
                        f"the classes are {', '.join(self.classes)}"
                    )
            if parent in graph.setdefault(child, set()):
                raise DataError(f"hierarchy edge {parent} -> {child} is given twice; keep one")
            graph[child].add(parent)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as err:
            raise DataError(f"the hierarchy has a cycle: {' -> '.join(err.args[1])}") from err

    def _check_numbers(self) -> None:
        seen: dict[object, str] = {}
        for name in self.classes:
            value = number(name)
            if value is not None and seen.setdefault(value, name) != name:
                raise DataError(
                    f"class names {seen[value]!r} and {name!r} are the same number, which no table can tell apart; "
                    "give one of them another name"
                )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def edge_indices(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) pairs as class indices."""
        index = {name: i for i, name in enumerate(self.classes)}
        return tuple((index[parent], index[child]) for parent, child in self.edges)

    @property
    def target_columns(self) -> list[str]:
        """Columns of the labels in a table of predictions: ``target`` or one ``target_<class>`` each."""
        return [f"target_{c}" for c in self.classes] if self.task == "multilabel" else ["target"]

    @property
    def label_columns(self) -> list[str]:
        """Columns of the labels in a manifest: ``label`` or one ``label_<class>`` each."""
        return [f"label_{c}" for c in self.classes] if self.task == "multilabel" else ["label"]

    @property
    def prob_columns(self) -> list[str]:
        return [f"prob_{c}" for c in self.classes]

    def to_json(self) -> dict[str, Any]:
        return {"task": self.task, "classes": list(self.classes), "edges": [list(e) for e in self.edges]}

    @classmethod
    def from_json(cls, value: Any) -> LabelSpace:
        """Inverse of ``to_json``. Raises DataError where keys are missing or of the wrong form."""
        try:
            return cls(
                task=value["task"],
                classes=tuple(str(c) for c in value["classes"]),
                edges=tuple((str(p), str(c)) for p, c in value.get("edges", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            if isinstance(err, DataError):
                raise
            raise DataError(
                f"not a label space: {value!r}; "
                'expected {"task": ..., "classes": [...], "edges": [[parent, child], ...]}'
            ) from err


@dataclass(frozen=True)
class LabelStatistics:
    """Counts over the labels of the rows a model trains on.

    Attributes:
        num_rows: images counted.
        class_counts: int64 [K], images of each class (``multilabel``: with that label 1).
        known_counts: int64 [K], images whose label for the class is known (not NaN).
        absent_parent: int64 [K, K], entry (u, v) counts images with u = 0 and v known; zero unless multilabel.
        absent_parent_present_child: int64 [K, K], entry (u, v) counts images with u = 0 and v = 1.
    """

    num_rows: int
    class_counts: npt.NDArray[np.int64]
    known_counts: npt.NDArray[np.int64]
    absent_parent: npt.NDArray[np.int64]
    absent_parent_present_child: npt.NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        return {
            "num_rows": self.num_rows,
            "class_counts": self.class_counts.tolist(),
            "known_counts": self.known_counts.tolist(),
            "absent_parent": self.absent_parent.tolist(),
            "absent_parent_present_child": self.absent_parent_present_child.tolist(),
        }


def label_statistics(targets: npt.NDArray[Any], label_space: LabelSpace) -> LabelStatistics:
    """Count ``targets``: int [N] class indices, or float [N, K] of 0, 1 and NaN for ``multilabel``."""
    k = label_space.num_classes
    if label_space.task != "multilabel":
        counts = np.bincount(targets.astype(np.int64), minlength=k)
        zeros = np.zeros((k, k), dtype=np.int64)
        return LabelStatistics(len(targets), counts, np.full(k, len(targets), dtype=np.int64), zeros, zeros)
    known = ~np.isnan(targets)
    present = known & (targets == 1)
    absent = known & (targets == 0)
    return LabelStatistics(
        num_rows=len(targets),
        class_counts=present.sum(axis=0).astype(np.int64),
        known_counts=known.sum(axis=0).astype(np.int64),
        absent_parent=absent.T.astype(np.int64) @ known.astype(np.int64),
        absent_parent_present_child=absent.T.astype(np.int64) @ present.astype(np.int64),
    )


def consistent_probabilities(probs: npt.NDArray[Any], label_space: LabelSpace) -> npt.NDArray[Any]:
    """``probs`` [N, K] with no child more probable than any of its parents: each is lowered to the least of them.

    Parents keep their values unless they are children themselves. Without a hierarchy nothing changes.

    Raises:
        DataError: not [N, K].
    """
    consistent = np.array(_checked_probs(probs, label_space))
    parents: dict[int, list[int]] = {}
    for parent, child in label_space.edge_indices:
        parents.setdefault(child, []).append(parent)
    for child in TopologicalSorter(parents).static_order():
        for parent in parents.get(child, ()):
            np.minimum(consistent[:, child], consistent[:, parent], out=consistent[:, child])
    return consistent


def violation_rate(probs: npt.NDArray[Any], label_space: LabelSpace, threshold: float = 0.5) -> float:
    """Share of (image, edge) pairs with the child above ``threshold`` and the parent below it, 0 to 1.

    Raises:
        DataError: not [N, K], no images, or a label space without a hierarchy, for which the rate is undefined.
    """
    probs = _checked_probs(probs, label_space)
    if not label_space.edges or not len(probs):
        raise DataError(
            f"a violation rate needs images and a hierarchy, got {len(probs)} images and {len(label_space.edges)} edges"
        )
    return float(np.mean(violations(probs, label_space, threshold)))


def violations(probs: npt.NDArray[Any], label_space: LabelSpace, threshold: float = 0.5) -> npt.NDArray[np.bool_]:
    """bool [N, E]: edge e is violated where the child is above ``threshold`` and the parent below it."""
    edges = np.asarray(label_space.edge_indices, dtype=np.int64).reshape(-1, 2)
    violated: npt.NDArray[np.bool_] = (probs[:, edges[:, 0]] < threshold) & (probs[:, edges[:, 1]] > threshold)
    return violated


def _checked_probs(probs: npt.NDArray[Any], label_space: LabelSpace) -> npt.NDArray[Any]:
    probs = np.asarray(probs)
    if probs.ndim != 2 or probs.shape[1] != label_space.num_classes:
        raise DataError(f"expected probabilities [N, {label_space.num_classes}], got shape {list(probs.shape)}")
    return probs
