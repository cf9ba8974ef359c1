import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from raregrade.errors import DataError
from raregrade.labels import (
    LabelSpace,
    consistent_probabilities,
    label_statistics,
    violation_rate,
)

GRADES = LabelSpace("ordinal", ("none", "mild", "severe"))
FINDINGS = LabelSpace(
    "multilabel", ("edema", "fluid", "opacity", "mass"), (("fluid", "edema"), ("opacity", "fluid"), ("opacity", "mass"))
)
PROBS = npst.arrays(np.float64, (7, 4), elements=st.floats(0, 1))


def test_names_of_columns_follow_the_task():
    assert GRADES.target_columns == ["target"]
    assert GRADES.label_columns == ["label"]
    assert GRADES.prob_columns == ["prob_none", "prob_mild", "prob_severe"]
    assert FINDINGS.target_columns[0] == "target_edema"
    assert FINDINGS.label_columns[3] == "label_mass"


def test_classes_keep_their_order_and_edges_become_indices():
    assert FINDINGS.num_classes == 4
    assert FINDINGS.classes == ("edema", "fluid", "opacity", "mass")
    assert FINDINGS.edge_indices == ((1, 0), (2, 1), (2, 3))


@pytest.mark.parametrize("space", [GRADES, FINDINGS])
def test_a_label_space_survives_json(space):
    assert LabelSpace.from_json(json.loads(json.dumps(space.to_json()))) == space


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("regression", ("a", "b")), "multiclass, ordinal, multilabel"),
        (("ordinal", ("a",)), "at least 2 classes"),
        (("multilabel", ()), "at least 1 classes"),
        (("ordinal", ("a", "b", "a")), "more than once: a"),
        (("ordinal", ("a", "b"), (("a", "b"),)), "needs task multilabel"),
        (("multilabel", ("a", "b"), (("a", "c"),)), "'c' is not a class; the classes are a, b"),
        (("multilabel", ("a", "b"), (("a", "b"), ("b", "a"))), "cycle: "),
        (("multilabel", ("a", "b"), (("a", "a"),)), "cycle: "),
        (("multilabel", ("a", "b"), (("a", "b"), (" a", "b"))), "a -> b is given twice"),
    ],
)
def test_a_label_space_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        LabelSpace(*arguments)


@pytest.mark.parametrize("value", [{}, {"task": "ordinal"}, [], None, {"task": "ordinal", "classes": 3}])
def test_json_of_another_form_is_refused(value):
    with pytest.raises(DataError, match="not a label space"):
        LabelSpace.from_json(value)


def test_json_of_a_wrong_label_space_says_what_is_wrong():
    with pytest.raises(DataError, match="more than once"):
        LabelSpace.from_json({"task": "ordinal", "classes": ["a", "a"]})


def test_statistics_of_grades_count_every_class_even_absent_ones():
    statistics = label_statistics(np.array([0, 0, 1, 0]), GRADES)
    assert statistics.num_rows == 4
    assert statistics.class_counts.tolist() == [3, 1, 0]
    assert statistics.known_counts.tolist() == [4, 4, 4]


@given(targets=npst.arrays(np.float64, (12, 4), elements=st.sampled_from([0.0, 1.0, np.nan])))
def test_statistics_of_findings_equal_plain_counting(targets):
    statistics = label_statistics(targets, FINDINGS)
    for u in range(4):
        assert statistics.class_counts[u] == sum(row[u] == 1 for row in targets)
        assert statistics.known_counts[u] == sum(not np.isnan(row[u]) for row in targets)
        for v in range(4):
            absent = [row for row in targets if row[u] == 0]
            assert statistics.absent_parent[u, v] == sum(not np.isnan(row[v]) for row in absent)
            assert statistics.absent_parent_present_child[u, v] == sum(row[v] == 1 for row in absent)


def test_statistics_can_be_written_as_json():
    statistics = label_statistics(np.array([[0, 1, 1, np.nan], [1, 1, 1, 0]]), FINDINGS)
    value = json.loads(json.dumps(statistics.to_json()))
    assert value["num_rows"] == 2
    assert value["class_counts"] == [1, 2, 2, 0]
    assert value["absent_parent_present_child"][0] == [0, 1, 1, 0]


@given(probs=PROBS)
def test_a_consistent_child_is_never_more_probable_than_its_parents(probs):
    consistent = consistent_probabilities(probs, FINDINGS)
    for parent, child in FINDINGS.edge_indices:
        assert (consistent[:, child] <= consistent[:, parent]).all()
    assert violation_rate(consistent, FINDINGS) == 0
    np.testing.assert_array_equal(consistent_probabilities(consistent, FINDINGS), consistent)


@given(probs=PROBS)
def test_consistent_decoding_only_lowers_and_leaves_roots_alone(probs):
    before = probs.copy()
    consistent = consistent_probabilities(probs, FINDINGS)
    assert (consistent <= probs).all()
    np.testing.assert_array_equal(consistent[:, 2], probs[:, 2])
    np.testing.assert_array_equal(probs, before)


def test_a_child_of_two_parents_is_bounded_by_the_lesser():
    space = LabelSpace("multilabel", ("a", "b", "c"), (("a", "c"), ("b", "c")))
    assert consistent_probabilities(np.array([[0.9, 0.2, 0.8]]), space).tolist() == [[0.9, 0.2, 0.2]]


def test_the_violation_rate_counts_image_edge_pairs_strictly():
    space = LabelSpace("multilabel", ("a", "b", "c"), (("a", "b"), ("a", "c")))
    probs = np.array([[0.4, 0.6, 0.1], [0.5, 0.9, 0.9], [0.1, 0.7, 0.8], [0.9, 0.9, 0.1]])
    assert violation_rate(probs, space) == 3 / 8
    assert violation_rate(probs, space, threshold=0.85) == 2 / 8


def test_a_rate_without_edges_or_images_is_refused():
    with pytest.raises(DataError, match="0 edges"):
        violation_rate(np.ones((2, 3)), LabelSpace("multilabel", ("a", "b", "c")))
    with pytest.raises(DataError, match="0 images"):
        violation_rate(np.ones((0, 4)), FINDINGS)


@pytest.mark.parametrize("function", [consistent_probabilities, violation_rate])
def test_probabilities_of_another_width_are_refused(function):
    with pytest.raises(DataError, match=r"\[N, 4\]"):
        function(np.ones((2, 3)), FINDINGS)


def test_class_names_are_kept_composed_and_without_blanks() -> None:
    space = LabelSpace("multilabel", ("le\u0301ger ", "se\u0301ve\u0300re"), (("le\u0301ger", " sévère"),))
    assert space.classes == ("léger", "sévère")
    assert space.edges == (("léger", "sévère"),)
    assert space == LabelSpace("multilabel", ("léger", "sévère"), (("léger", "sévère"),))


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (("1", "1.0"), "class names '1' and '1.0' are the same number"),
        (("one", "2", "02"), "class names '2' and '02' are the same number"),
        (("é", "e\u0301"), "given more than once: é"),
        (("low", " "), "class 1 has an empty name"),
    ],
)
def test_class_names_that_no_table_can_tell_apart_are_refused(classes: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        LabelSpace("multiclass", classes)
