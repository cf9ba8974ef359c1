"""Images in the forms in which they arrive; the same pixels give the same probabilities."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raregrade.data.sources.decode import load_image
from raregrade.errors import DataError, ModelError
from raregrade.labels import LabelSpace
from raregrade.models.decisions import Decision, default_decision, with_decision
from raregrade.serving.predictor import Predictor, decide

MakeModel = Callable[..., Path]


def _save(path: Path, shape: tuple[int, ...], seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_an_image_is_graded_as_the_network_sees_it_after_prepare(make_model: MakeModel, tmp_path: Path) -> None:
    path = _save(tmp_path / "wide.png", (50, 80, 3))
    predictor = Predictor(make_model())
    (prediction,) = predictor.predict([path])
    pixels = load_image(path, 32, "rgb")
    expected = predictor.model.probabilities(predictor.model.predict(pixels[None]))[0]
    assert prediction.image == str(path)
    assert list(prediction.probabilities) == ["none", "mild", "severe"]
    np.testing.assert_array_equal(list(prediction.probabilities.values()), expected)
    assert prediction.grade == ["none", "mild", "severe"][int(expected.argmax())]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_bytes_are_graded_as_the_file_that_holds_them(make_model: MakeModel, tmp_path: Path, suffix: str) -> None:
    path = _save(tmp_path / f"large.{suffix}", (200, 150, 3))
    from_file, from_bytes = Predictor(make_model()).predict([path, path.read_bytes()])
    assert from_bytes.probabilities == from_file.probabilities
    assert from_bytes.image == "image 2"


def test_batches_do_not_change_what_is_predicted_nor_the_order(make_model: MakeModel, tmp_path: Path) -> None:
    paths = [_save(tmp_path / f"{i}.png", (40, 40, 3), seed=i) for i in range(7)]
    predictor = Predictor(make_model())
    np.testing.assert_allclose(
        predictor.probabilities(paths, batch_size=3), predictor.probabilities(paths, batch_size=7), atol=1e-6
    )
    assert [p.image for p in predictor.predict(paths, batch_size=3)] == [str(p) for p in paths]


def test_a_grey_model_takes_colour_images_and_a_colour_model_grey_ones(make_model: MakeModel, tmp_path: Path) -> None:
    colour, grey = _save(tmp_path / "colour.png", (40, 40, 3)), _save(tmp_path / "grey.png", (40, 40))
    for channels in (1, 3):
        predictions = Predictor(make_model(channels=channels, name=f"model{channels}")).predict([colour, grey])
        assert all(np.isclose(sum(p.probabilities.values()), 1.0) for p in predictions)


def test_a_multilabel_model_names_every_finding_that_is_present(make_model: MakeModel, tmp_path: Path) -> None:
    (prediction,) = Predictor(make_model("multilabel")).predict([_save(tmp_path / "x.png", (40, 40))])
    assert prediction.grade == [name for name, p in prediction.probabilities.items() if p > 0.5]
    space = LabelSpace("multilabel", ("a", "b", "c"))
    probs = np.array([[0.9, 0.5, 0.51], [0.1, 0.2, 0.3]])
    assert decide(probs, space, default_decision(space)) == [["a", "c"], []]
    assert decide(probs, space, Decision("threshold", thresholds=(0.95, 0.4, 0.2))) == [["b", "c"], ["c"]]


def test_a_model_decides_by_the_rule_of_its_card(make_model: MakeModel, tmp_path: Path) -> None:
    folder = make_model()
    image = _save(tmp_path / "x.png", (40, 40))
    (before,) = Predictor(folder).predict([image])
    classes = list(before.probabilities)
    always_last = tuple(tuple(float(j != len(classes) - 1) for j in range(len(classes))) for _ in classes)
    card = json.loads((folder / "model.json").read_text())
    decided = with_decision(card, Decision("expected_cost", costs=always_last))
    (folder / "model.json").write_text(json.dumps(decided))
    (after,) = Predictor(folder).predict([image])
    assert after.grade == classes[-1]
    assert after.probabilities == before.probabilities


def test_no_image_gives_no_prediction(make_model: MakeModel) -> None:
    assert Predictor(make_model()).predict([]) == []


def test_an_unreadable_image_is_named(make_model: MakeModel, tmp_path: Path) -> None:
    predictor = Predictor(make_model())
    good = _save(tmp_path / "good.png", (40, 40, 3))
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(DataError, match=r"notes\.txt"):
        predictor.predict([good, tmp_path / "notes.txt"])
    with pytest.raises(DataError, match=r"missing\.png"):
        predictor.predict([good, tmp_path / "missing.png"])
    with pytest.raises(DataError, match=r"^image 2: not a readable image \(12 bytes\)"):
        predictor.predict([good.read_bytes(), b"not an image"])
    with pytest.raises(DataError, match="image 1"):
        predictor.predict([good.read_bytes()[:-200]])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a model folder"):
        Predictor(tmp_path)


def test_the_predictor_takes_what_pillow_writes_in_memory(make_model: MakeModel) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 32), dtype=np.uint16)).save(buffer, format="PNG")
    (prediction,) = Predictor(make_model(channels=1)).predict([buffer.getvalue()])
    assert prediction.grade in ("none", "mild", "severe")
