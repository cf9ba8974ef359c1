"""Imports point one way, and what a step does not need is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "raregrade"

# Installed with extras alone: prepare, train and evaluate work without them.
OPTIONAL = ("mlflow", "dvc", "kfp", "optuna", "pytorch_metric_learning", "dlordinal", "boto3")

REFUSE = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"refused by the test: {{name}}", name=name)
sys.meta_path.insert(0, Refuse())
"""

IMPORT_STEPS = (
    REFUSE
    + """
import raregrade.steps.phantom, raregrade.steps.prepare, raregrade.steps.train, raregrade.steps.evaluate
import raregrade.steps.compare, raregrade.steps.tune
"""
)

RUN_STEPS = (
    REFUSE
    + """
from pathlib import Path
from raregrade.config import params_from_dict, section
from raregrade.steps.compare import compare
from raregrade.steps.evaluate import evaluate
from raregrade.steps.phantom import phantom
from raregrade.steps.prepare import prepare
from raregrade.steps.train import train
from raregrade.tracking import Tracking

params = params_from_dict({
    "phantom": {"patients": 30, "max_images_per_patient": 2, "image_size": 16},
    "data": {
        "source": "phantom", "path": "raw", "task": "ordinal",
        "classes": ["none", "mild", "moderate", "severe"], "image_size": 16, "split": {"val": 0.25, "test": 0.25},
    },
    "train": {"epochs": 1, "threads": 1, "precision": "float32"},
    "losses": {"cdw_ce": {}, "lmf": {}},
    "compare": {"losses": ["cdw_ce", "lmf"], "seeds": [1], "baseline": "lmf"},
    "tracking": {"uri": "none"},
})
tracking = Tracking.of(params)
phantom(section(params, "phantom"), Path("raw"))
prepare(section(params, "prepare"), Path("prepared"), tracking=tracking)
for loss in params.losses:
    model, report = Path("models") / loss, Path("reports") / loss
    train(section(params, "train", loss), Path("prepared"), model, seed=1, tracking=tracking)
    metrics = evaluate(section(params, "evaluate"), model, Path("prepared"), report, tracking=tracking)
    assert "val_qwk" in metrics
reports = sorted(Path("reports").iterdir())
comparison = compare(section(params, "compare"), reports, Path("comparison"), tracking=tracking)
print(comparison["winner"]["loss"])
"""
)


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


def test_imports_point_one_way() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [tool, "--no-cache", "--config", ROOT / "pyproject.toml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_the_steps_import_without_the_optional_packages(tmp_path: Path) -> None:
    result = python(IMPORT_STEPS, tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_refusal_that_these_tests_rest_on_works(tmp_path: Path) -> None:
    result = python(REFUSE + "import mlflow", tmp_path)
    assert "refused by the test: mlflow" in result.stderr


@pytest.mark.slow
def test_the_steps_run_without_the_optional_packages(tmp_path: Path) -> None:
    result = python(RUN_STEPS, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] in ("cdw_ce", "lmf")
