"""What users have: the wheel, installed without a checkout, and an empty folder."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import Write

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with the wheel and the packages of this one, but without the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("src", "pipelines", "components"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(source, sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    shutil.rmtree(source)
    run(folder, sys.executable, "-m", "venv", "--without-pip", "environment")
    packages = next((folder / "environment").glob("lib/python*/site-packages"))
    shutil.unpack_archive(next(folder.glob("*.whl")), packages, "zip")
    # .pth files of the other environment are not read where its folder is on a path of ours: its checkout stays out.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    bin_folder = folder / "environment" / "bin"
    for name, module in (("raregrade", "raregrade"), ("dvc", "dvc")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec "{bin_folder / "python"}" -m {module} "$@"\n')
        (bin_folder / name).chmod(0o755)
    return bin_folder


def run(folder: Path, *command: str, path: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_package_comes_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    code = "import raregrade; print(raregrade.__file__)"
    found = run(tmp_path, str(installed / "python"), "-c", code)
    assert Path(found.strip()).is_relative_to(installed.parent)


def test_an_empty_folder_becomes_a_project_that_dvc_reproduces(installed: Path, tmp_path: Path, table: Write) -> None:
    grades = ["none", "mild", "severe"]
    labels = table("filename,grade,patient", [f"{i}.png,{grades[i % 3]},P{i // 2}" for i in range(90)], size=32)
    folder = tmp_path / "knees"
    run(tmp_path, "raregrade", "init", "knees", "--table", str(labels), path=installed)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= {"backbone": "test_resnet", "stem": "timm", "epochs": 1, "precision": "float32", "threads": 1}
    params["compare"] |= {"losses": ["ce", "cdw_ce"], "seeds": [1]}
    params["losses"]["cdw_ce"] = {"power": 2.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run(folder, "dvc", "repro", path=installed)
    assert (folder / "comparison" / "comparison.html").is_file()
    assert not (folder / "registered.json").exists()
    assert "cdw_ce" in run(folder, "dvc", "metrics", "show", path=installed)
    run(folder, "raregrade", "pipeline", "compile", "compare_losses", "--out", "compiled.yaml", path=installed)
    assert (folder / "compiled.yaml").is_file()
    moved = folder.rename(tmp_path / "moved")
    assert "paths brought up to date" in run(moved, "raregrade", "relocate", path=installed)
    assert "registered" in run(moved, "dvc", "repro", "register/dvc.yaml", path=installed)
