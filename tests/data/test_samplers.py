import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raregrade.data.samplers import class_balanced_indices, pk_batches

TARGETS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(targets=TARGETS, seed=st.integers(0, 100), n=st.integers(1, 200))
def test_every_class_that_occurs_is_drawn_equally_often_up_to_one(targets, seed, n):
    chosen = class_balanced_indices(targets, seed=seed, epoch=0, n=n)
    assert len(chosen) == n
    drawn = [int((targets[chosen] == c).sum()) for c in np.unique(targets)]
    assert max(drawn) - min(drawn) <= 1


@given(targets=TARGETS, seed=st.integers(0, 100), n=st.integers(1, 200))
def test_no_image_comes_again_before_all_of_its_class_came(targets, seed, n):
    chosen = class_balanced_indices(targets, seed=seed, epoch=3, n=n)
    times = np.bincount(chosen, minlength=len(targets))
    for c in np.unique(targets):
        of_class = times[targets == c]
        assert of_class.max() - of_class.min() <= 1


def test_the_order_depends_on_seed_and_epoch_alone():
    targets = np.array([0] * 50 + [1] * 10 + [2] * 3)
    first = class_balanced_indices(targets, seed=1, epoch=0, n=63)
    np.random.default_rng(99).random(1000)
    assert np.array_equal(class_balanced_indices(targets, seed=1, epoch=0, n=63), first)
    assert not np.array_equal(class_balanced_indices(targets, seed=1, epoch=1, n=63), first)
    assert not np.array_equal(class_balanced_indices(targets, seed=2, epoch=0, n=63), first)


def test_classes_come_mixed_and_not_in_blocks():
    targets = np.array([0] * 500 + [1] * 500)
    drawn = targets[class_balanced_indices(targets, seed=1, epoch=0, n=1000)]
    assert 300 < np.count_nonzero(np.diff(drawn)) < 700


def test_a_rare_label_of_a_multilabel_task_is_drawn_more_often():
    targets = np.zeros((200, 3), dtype=np.float32)
    targets[:100, 0] = 1
    targets[:4, 2] = 1
    targets[0, 1] = np.nan
    drawn = targets[class_balanced_indices(targets, seed=1, epoch=0, n=300)]
    assert (drawn[:, 2] == 1).sum() >= 100
    assert (np.nansum(drawn, axis=1) == 0).sum() == 100


@given(
    targets=st.lists(st.integers(0, 4), min_size=4, max_size=60).map(np.array).filter(lambda t: len(np.unique(t)) > 1),
    p=st.integers(2, 6),
    k=st.integers(2, 5),
    seed=st.integers(0, 50),
)
def test_every_batch_has_k_images_of_each_of_p_classes(targets, p, k, seed):
    classes = np.unique(targets)
    batches = pk_batches(targets, p, k, seed=seed, epoch=1)
    assert batches
    turns = np.zeros(5, dtype=int)
    for batch in batches:
        present, times = np.unique(targets[batch], return_counts=True)
        assert len(present) == min(p, len(classes))
        assert (times == k).all()
        turns[present] += 1
    assert turns[classes].max() - turns[classes].min() <= 1


def test_a_batch_repeats_an_image_only_where_its_class_is_too_small():
    targets = np.array([0] * 40 + [1] * 40 + [2])
    for batch in pk_batches(targets, 3, 4, seed=0, epoch=0):
        assert len(set(batch[targets[batch] != 2])) == 8
        assert (batch == 80).sum() == 4


def test_an_epoch_has_about_as_many_images_as_the_data():
    targets = np.array([0] * 90 + [1] * 10)
    assert len(pk_batches(targets, 2, 4, seed=0, epoch=0)) == 12


def test_batches_depend_on_seed_and_epoch_alone():
    targets = np.array([0] * 20 + [1] * 20)
    first = pk_batches(targets, 2, 3, seed=4, epoch=0)
    assert all(np.array_equal(a, b) for a, b in zip(first, pk_batches(targets, 2, 3, seed=4, epoch=0), strict=True))
    other = pk_batches(targets, 2, 3, seed=4, epoch=1)
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("p", "k"), [(1, 4), (4, 1)])
def test_batches_without_pairs_are_refused(p, k):
    with pytest.raises(ValueError, match=f"p = {p}, k = {k}"):
        pk_batches(np.array([0, 1, 0, 1]), p, k, seed=0, epoch=0)


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        pk_batches(np.zeros(5, dtype=int), 2, 2, seed=0, epoch=0)
    with pytest.raises(ValueError, match="one label"):
        pk_batches(np.zeros((5, 2)), 2, 2, seed=0, epoch=0)
    with pytest.raises(ValueError, match="no targets"):
        class_balanced_indices(np.array([], dtype=int), seed=0, epoch=0, n=3)
    with pytest.raises(ValueError, match="n = 0"):
        class_balanced_indices(np.array([0]), seed=0, epoch=0, n=0)
