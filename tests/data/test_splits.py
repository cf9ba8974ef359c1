"""Dealing groups: properties over random datasets, and the cases that have one right answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from raregrade.config import SplitConfig
from raregrade.data.splits import SPLITS, Groups, assign_folds, assign_splits, deal_validation
from raregrade.errors import DataError
from raregrade.labels import LabelSpace

SPACE = LabelSpace("ordinal", ("a", "b", "c"))
MULTI = LabelSpace("multilabel", ("a", "b", "c", "d"))


def one_hot(labels: np.ndarray, k: int = 3) -> np.ndarray:
    return np.eye(k, dtype=np.float32)[labels]


def random_rows(rng: np.random.Generator, groups: int, k: int = 3) -> tuple[list[str], np.ndarray]:
    """Rows of ``groups`` patients with 1 to 5 images; classes with shares 0.7, 0.2, 0.1, correlated in a patient."""
    names, labels = [], []
    for g in range(groups):
        own = rng.choice(k, p=[0.7, 0.2, 0.1])
        for _ in range(rng.integers(1, 6)):
            names.append(f"g{g}")
            labels.append(own if rng.random() < 0.7 else rng.choice(k, p=[0.7, 0.2, 0.1]))
    return names, np.array(labels)


def have_three_groups_each(names: list[str], labels: np.ndarray) -> bool:
    return all(len({n for n, y in zip(names, labels, strict=True) if y == k}) >= 3 for k in range(3))


def splits_of_rows(names: list[str], labels: np.ndarray, seed: int, config: SplitConfig | None = None) -> np.ndarray:
    groups = Groups.from_rows(names, labels)
    split = assign_splits(groups, config or SplitConfig(), SPACE, seed)
    return np.array([split[g] for g in groups.of_row])


@given(st.integers(0, 2**32 - 1), st.integers(40, 120))
def test_no_group_crosses_and_each_split_has_its_share_of_every_class(seed: int, groups: int) -> None:
    names, labels = random_rows(np.random.default_rng(seed), groups)
    assume(have_three_groups_each(names, labels))
    split = splits_of_rows(names, one_hot(labels), seed)
    for name in set(names):
        assert len(set(split[np.array(names) == name])) == 1
    assert np.isclose((split == "test").mean(), 0.15, atol=0.04)
    assert np.isclose((split == "val").mean(), 0.15, atol=0.04)
    for k in range(3):
        inside = split[labels == k]
        # a class of n images cannot be dealt more finely than by patients of up to five images
        assert np.isclose((inside == "test").mean(), 0.15, atol=0.03 + 4 / len(inside))
        assert np.isclose((inside == "val").mean(), 0.15, atol=0.03 + 4 / len(inside))


@given(st.integers(0, 2**32 - 1))
def test_the_deal_does_not_depend_on_the_order_of_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names, labels = random_rows(rng, 30)
    assume(have_three_groups_each(names, labels))
    order = rng.permutation(len(names))
    split = splits_of_rows(names, one_hot(labels), 5)
    shuffled = splits_of_rows([names[i] for i in order], one_hot(labels[order]), 5)
    assert np.array_equal(split[order], shuffled)


def test_the_same_seed_deals_the_same_and_another_seed_differently() -> None:
    names, labels = random_rows(np.random.default_rng(1), 60)
    first = splits_of_rows(names, one_hot(labels), 1)
    assert np.array_equal(first, splits_of_rows(names, one_hot(labels), 1))
    assert not np.array_equal(first, splits_of_rows(names, one_hot(labels), 2))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8)), min_size=9, max_size=30), st.integers(0, 99))
def test_a_class_with_three_groups_is_in_every_split(groups: list[tuple[int, int]], seed: int) -> None:
    """One class a group: three groups are always enough."""
    assume(all(sum(k == c for c, _ in groups) >= 3 for k in range(3)))
    names = [f"g{i}" for i, (_, n) in enumerate(groups) for _ in range(n)]
    labels = np.array([c for c, n in groups for _ in range(n)])
    split = splits_of_rows(names, one_hot(labels), seed)
    for k in range(3):
        assert set(split[labels == k]) == set(SPLITS)


@given(st.integers(0, 2**32 - 1))
def test_multilabel_classes_keep_their_share_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = np.array([0.5, 0.3, 0.1, 0.05])
    names = [f"g{i}" for i in range(200) for _ in range(2)]
    labels = (rng.random((400, 4)) < rates).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    groups = Groups.from_rows(names, labels)
    split = np.array(assign_splits(groups, SplitConfig(), MULTI, 0))[groups.of_row]
    for k in range(4):
        inside = split[labels[:, k] == 1]
        assert np.isclose((inside == "test").mean(), 0.15, atol=0.03 + 2 / len(inside))


def test_classes_that_share_patients_are_dealt_together() -> None:
    """Class a lies in patients 0-2, b in 2-4, c in 4-6: a deal by one class alone can leave another without a split."""
    names = [str(i) for i in range(7)] + ["2", "4"]
    labels = one_hot(np.array([0, 0, 0, 1, 1, 2, 2, 1, 2]))
    for seed in range(20):
        split = splits_of_rows(names, labels, seed)
        for k in range(3):
            assert set(split[labels[:, k] == 1]) == set(SPLITS)


def test_a_class_of_two_patients_is_refused_with_its_name_and_number() -> None:
    names = [f"g{i}" for i in range(8)]
    labels = one_hot(np.array([0, 0, 0, 1, 1, 1, 2, 2]))
    with pytest.raises(DataError, match=r"class 'c' \(2\) has images from fewer than 3 groups"):
        splits_of_rows(names, labels, 0)


def test_a_deal_that_cannot_be_is_refused() -> None:
    """Classes in patients {0,1,2}, {0,1,3}, {2,3,4}: 2 and 3 must share a split, and must not."""
    names = ["0", "1", "2", "0", "1", "3", "2", "3", "4"]
    labels = one_hot(np.repeat([0, 1, 2], 3))
    with pytest.raises(DataError, match="cannot be in each of train, val and test"):
        splits_of_rows(names, labels, 0)


@given(st.integers(0, 2**32 - 1))
def test_known_groups_keep_their_split_and_new_ones_fill_up_the_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names, labels = random_rows(rng, 100)
    old = [n in {f"g{i}" for i in range(60)} for n in names]
    old_names = [n for n, o in zip(names, old, strict=True) if o]
    assume(have_three_groups_each(old_names, labels[old]))
    before = splits_of_rows(old_names, one_hot(labels[old]), 1)
    known = dict(zip(old_names, before.tolist(), strict=True))
    groups = Groups.from_rows(names, one_hot(labels))
    after = dict(zip(groups.names, assign_splits(groups, SplitConfig(), SPACE, 2, known), strict=True))
    assert {n: after[n] for n in known} == known
    rows = np.array([after[n] for n in names])
    assert np.isclose((rows == "test").mean(), 0.15, atol=0.04)


def test_known_groups_that_are_gone_are_ignored() -> None:
    names, labels = random_rows(np.random.default_rng(0), 40)
    groups = Groups.from_rows(names, one_hot(labels))
    assert assign_splits(groups, SplitConfig(), SPACE, 0, {"gone": "test"}) == assign_splits(
        groups, SplitConfig(), SPACE, 0
    )


def test_known_groups_that_hold_a_class_in_one_split_are_refused() -> None:
    names = [f"g{i}" for i in range(9)]
    groups = Groups.from_rows(names, one_hot(np.repeat([0, 1, 2], 3)))
    known = dict.fromkeys(("g6", "g7", "g8"), "train")
    with pytest.raises(DataError, match=r"class 'c'.*with the groups that keep their split"):
        assign_splits(groups, SplitConfig(), SPACE, 0, known)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_folds_divide_train_and_val_by_group_and_class(seed: int, folds: int) -> None:
    names, labels = random_rows(np.random.default_rng(seed), 80)
    assume(have_three_groups_each(names, labels))
    groups = Groups.from_rows(names, one_hot(labels))
    split = assign_splits(groups, SplitConfig(), SPACE, 0)
    fold = assign_folds(groups, split, folds, 0)
    assert np.array_equal(fold == -1, np.array(split) == "test")
    rows = fold[groups.of_row]
    assert set(rows) == {-1, *range(folds)}
    for f in range(folds):
        assert np.isclose((rows[rows >= 0] == f).mean(), 1 / folds, atol=0.05)


def test_more_folds_than_groups_are_refused() -> None:
    names = [f"g{i}" for i in range(9)]
    groups = Groups.from_rows(names, one_hot(np.repeat([0, 1, 2], 3)))
    with pytest.raises(DataError, match=r"data\.split\.folds: 7 folds"):
        assign_folds(groups, assign_splits(groups, SplitConfig(), SPACE, 0), 7, 0)


def test_val_is_dealt_from_train_and_test_is_left_alone() -> None:
    names, labels = random_rows(np.random.default_rng(0), 80)
    groups = Groups.from_rows(names, one_hot(labels))
    own = ["test" if i % 4 == 0 else "train" for i in range(len(groups.names))]
    split = deal_validation(groups, SplitConfig(val=0.2), SPACE, 0, split=own)
    assert [s == "test" for s in split] == [s == "test" for s in own]
    sizes = {s: sum(int(n) for n, t in zip(groups.sizes, split, strict=True) if t == s) for s in SPLITS}
    assert np.isclose(sizes["val"] / (sizes["train"] + sizes["val"]), 0.2, atol=0.04)


def test_val_that_cannot_have_a_class_is_refused() -> None:
    groups = Groups.from_rows([f"g{i}" for i in range(6)], one_hot(np.array([0, 0, 1, 1, 2, 2])))
    with pytest.raises(DataError, match="class 'c' cannot be in both train and val"):
        deal_validation(groups, SplitConfig(), SPACE, 0, split=["train"] * 5 + ["test"])


@pytest.mark.slow
def test_a_hundred_thousand_groups_are_dealt_within_seconds() -> None:
    labels = np.random.default_rng(0).choice(3, 100_000, p=[0.9, 0.09, 0.01])
    split = splits_of_rows([f"g{i}" for i in range(100_000)], one_hot(labels), 0)
    assert np.isclose((split[labels == 2] == "test").mean(), 0.15, atol=0.002)
