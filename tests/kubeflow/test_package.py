"""Pipelines and components as a part of the installed package: from a wheel, however it was built."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from raregrade.kubeflow.compile import NAMES
from raregrade.kubeflow.source_digest import source_digest

ROOT = Path(__file__).resolve().parents[2]


def build(source, target, out):
    """Build with the backend itself, which fetches nothing; the file it made."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(out)]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as its wheel holds it."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build(ROOT, "wheel", folder / "made")) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


def test_the_wheel_holds_what_the_checkout_holds(installed):
    assert source_digest(installed / "raregrade") == source_digest(ROOT / "src" / "raregrade")


def test_a_wheel_that_is_built_from_the_sdist_is_the_same(installed, tmp_path):
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as sdist:
        sdist.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    with zipfile.ZipFile(build(source, "wheel", tmp_path / "wheel")) as wheel:
        wheel.extractall(tmp_path / "installed")
    assert source_digest(tmp_path / "installed" / "raregrade") == source_digest(installed / "raregrade")


def test_pipelines_compile_from_the_wheel_in_an_empty_folder(installed, tmp_path):
    def compile_here(*options):
        command = [sys.executable, "-m", "raregrade", "pipeline", "compile", *options]
        environment = os.environ | {"PYTHONPATH": str(installed), "RAREGRADE_IMAGE": ""}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    refused = compile_here()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "where to? Give --out" in refused.stderr
    done = compile_here("--out", "pipelines/")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "pipelines").iterdir()) == [f"{name}.yaml" for name in NAMES]
    for name in NAMES:
        here, committed = (folder / "pipelines" / f"{name}.yaml" for folder in (tmp_path, ROOT))
        assert here.read_text() == committed.read_text()
