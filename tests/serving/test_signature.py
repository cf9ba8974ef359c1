"""What the MLflow model promises: its columns, and the packages it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raregrade.labels import LabelSpace
from raregrade.serving.predictor import Prediction
from raregrade.serving.signature import model_signature, output_columns, output_table, pip_requirements

ORDINAL = LabelSpace("ordinal", ("none", "severe"))
FINDINGS = LabelSpace("multilabel", ("opacity", "effusion"))


def test_predictions_become_a_table_with_the_columns_of_the_signature() -> None:
    single = output_table([Prediction("a.png", "severe", {"none": 0.2, "severe": 0.8})], ORDINAL)
    pd.testing.assert_frame_equal(single, pd.DataFrame({"grade": ["severe"], "prob_none": [0.2], "prob_severe": [0.8]}))
    several = output_table([Prediction("a.png", ["opacity"], {"opacity": 0.8, "effusion": 0.1})], FINDINGS)
    assert several["findings"].tolist() == [["opacity"]]
    for space, table in ((ORDINAL, single), (FINDINGS, several)):
        assert [column.name for column in model_signature(space).outputs] == list(table.columns)
        assert output_columns(space) == list(table.columns)


def test_no_prediction_is_an_empty_table() -> None:
    assert list(output_table([], ORDINAL).columns) == ["grade", "prob_none", "prob_severe"]


def test_requirements_are_exact_and_installable_from_an_index() -> None:
    for line in pip_requirements():
        name, _, version = line.partition("==")
        assert name
        assert version
        assert "+" not in version


@pytest.mark.slow
def test_the_requirements_cover_all_that_predicting_imports(make_model: Callable[..., Path], tmp_path: Path) -> None:
    """A prediction in a process of its own, with every installed package hidden that the requirements do not bring."""
    code = """
import importlib.metadata as metadata, re, sys
from importlib.machinery import PathFinder
from pathlib import Path
from raregrade.serving.signature import pip_requirements

def closure(names):
    seen = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        names += [re.match(r"[\\w.-]+", r).group() for r in requires if "extra ==" not in r]
    return seen

allowed = closure([line.partition("==")[0] for line in pip_requirements()])
packages = metadata.packages_distributions()
hidden = {top for top, owners in packages.items()
          if not any(re.sub(r"[-_.]+", "-", o).lower() in allowed for o in owners)} - {"raregrade"}

assert not hidden & {module.split(".")[0] for module in sys.modules}

class Visible(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Visible
import raregrade.serving.mlflow_model
from raregrade.serving.predictor import Predictor
from PIL import Image
import io
buffer = io.BytesIO()
Image.new("RGB", (40, 40)).save(buffer, format="JPEG")
print(Predictor(Path(sys.argv[1])).predict([buffer.getvalue()])[0].grade)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code, str(make_model())], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() in ("none", "mild", "severe")
