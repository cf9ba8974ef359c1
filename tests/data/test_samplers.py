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
    size=st.integers(4, 40),
    least=st.integers(2, 6),
    count=st.integers(1, 12),
    seed=st.integers(0, 50),
)
def test_every_batch_is_full_and_shared_evenly_by_as_many_classes_as_fit(targets, size, least, count, seed):
    classes = np.unique(targets)
    batches = pk_batches(targets, size, least, count=count, seed=seed, epoch=1)
    assert [len(batch) for batch in batches] == [size] * count
    wanted = min(len(classes), max(2, size // least))
    for batch in batches:
        present, times = np.unique(targets[batch], return_counts=True)
        assert len(present) == wanted
        assert times.max() - times.min() <= 1
        assert times.min() >= least or size < 2 * least


@given(count=st.integers(1, 30), size=st.integers(8, 20), seed=st.integers(0, 50))
def test_over_an_epoch_classes_take_turns_and_images_too(count, size, seed):
    targets = np.repeat([0, 1, 2, 3, 4], [40, 20, 10, 6, 5])
    drawn = np.concatenate(pk_batches(targets, size, 4, count=count, seed=seed, epoch=0))
    of_class = np.bincount(targets[drawn], minlength=5)
    each = -(-size // min(5, size // 4))
    assert of_class.max() - of_class.min() <= each
    times = np.bincount(drawn, minlength=len(targets))
    for c in range(5):
        assert times[targets == c].max() - times[targets == c].min() <= 1


def test_a_batch_repeats_an_image_only_where_its_class_is_too_small():
    targets = np.array([0] * 40 + [1] * 40 + [2])
    for batch in pk_batches(targets, 12, 4, count=6, seed=0, epoch=0):
        assert len(set(batch[targets[batch] != 2])) == 8
        assert (batch == 80).sum() == 4


def test_batches_depend_on_seed_and_epoch_alone():
    targets = np.array([0] * 20 + [1] * 20)
    first = pk_batches(targets, 6, 3, count=6, seed=4, epoch=0)
    again = pk_batches(targets, 6, 3, count=6, seed=4, epoch=0)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for seed, epoch in ((4, 1), (5, 0)):
        other = pk_batches(targets, 6, 3, count=6, seed=seed, epoch=epoch)
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("size", "least"), [(3, 2), (8, 1)])
def test_batches_without_pairs_are_refused(size, least):
    with pytest.raises(ValueError, match=f"got batches of {size} images and at least {least} of each class"):
        pk_batches(np.array([0, 1, 0, 1]), size, least, count=1, seed=0, epoch=0)


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        pk_batches(np.zeros(5, dtype=int), 4, 2, count=1, seed=0, epoch=0)
    with pytest.raises(ValueError, match="one label"):
        pk_batches(np.zeros((5, 2)), 4, 2, count=1, seed=0, epoch=0)
    with pytest.raises(ValueError, match="no targets"):
        class_balanced_indices(np.array([], dtype=int), seed=0, epoch=0, n=3)
    with pytest.raises(ValueError, match="n = 0"):
        class_balanced_indices(np.array([0]), seed=0, epoch=0, n=0)
