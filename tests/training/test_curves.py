"""Learning curves as a picture: what is in it, and that the same history gives the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pytest
from PIL import Image

from raregrade.training.curves import write_curves


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": e, "train_loss": 2.0 / e, "lr": 1e-3 / e, "val_qwk": 0.1 * e, "val_mae": 1.0 / e}
        for e in range(1, epochs + 1)
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are saved."""
    figures: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def remember(self: matplotlib.figure.Figure, *arguments: object, **named: object) -> None:
        figures.append(self)
        save(self, *arguments, **named)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return figures


def test_a_picture_shows_loss_metric_and_learning_rate_of_every_epoch(
    tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    (path,) = write_curves(history(5), tmp_path, "qwk", best_epoch=5)
    with Image.open(path) as image:
        assert image.size == (1080, 960)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50
    losses, values, rates = drawn[0].axes
    assert list(losses.lines[0].get_ydata()) == [2.0 / e for e in range(1, 6)]
    assert list(rates.lines[0].get_xdata()) == [1, 2, 3, 4, 5]
    assert [a.get_ylabel() for a in drawn[0].axes] == ["Training loss", "Validation qwk", "Learning rate"]
    assert values.get_title("right") == "◯ best: 0.5000 at epoch 5"


def test_stages_are_told_apart(tmp_path: Path, drawn: list[matplotlib.figure.Figure]) -> None:
    write_curves(history(6), tmp_path, "mae", best_epoch=5, stages=[4])
    losses = drawn[0].axes[0]
    assert [list(line.get_xdata()) for line in losses.lines[:2]] == [[1, 2, 3, 4], [5, 6]]
    assert [text.get_text() for text in losses.texts] == ["stage 2"]
    assert losses.lines[2].get_xdata()[0] == 4.5


def test_a_stage_without_epochs_has_a_value_and_no_loss(tmp_path: Path, drawn: list[matplotlib.figure.Figure]) -> None:
    rows = [*history(3), {"epoch": 3, "val_qwk": 0.9}]
    write_curves(rows, tmp_path, "qwk", best_epoch=3, stages=[3])
    assert drawn[0].axes[1].get_title("right") == "◯ best: 0.9000 at epoch 3"
    assert len(drawn[0].axes[0].lines[0].get_xdata()) == 3


def test_one_epoch_is_enough_and_none_gives_no_picture(tmp_path: Path) -> None:
    assert write_curves([], tmp_path, "qwk") == []
    assert write_curves(history(1), tmp_path, "qwk", best_epoch=1) == [tmp_path / "curves.png"]


def test_the_same_history_gives_the_same_bytes(tmp_path: Path) -> None:
    pictures = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (path,) = write_curves(history(5), tmp_path / name, "qwk", best_epoch=5)
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.slow
def test_training_does_not_wait_for_matplotlib_to_be_imported() -> None:
    code = "import sys, raregrade.steps.train, raregrade.training.loop, raregrade.training.progress\n"
    code += "assert not [m for m in sys.modules if m.startswith('matplotlib')]"
    subprocess.run([sys.executable, "-c", code], check=True)
