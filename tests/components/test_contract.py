"""What holds for every component, whatever it does: metadata, image, nothing installed at run time."""

import ast
import importlib
import os
import re
import runpy
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from raregrade import __version__
from raregrade.kubeflow.compile import NAMES as PIPELINES
from raregrade.kubeflow.compile import committed_yaml
from raregrade.kubeflow.images import IMAGE

ROOT = Path(__file__).resolve().parents[2]
documents = runpy.run_path(str(ROOT / "scripts" / "component_docs.py"))["documents"]
FOLDERS = sorted(p.parent for p in (ROOT / "components").glob("*/component.py"))
NAMES = {
    "collect_study",
    "compare_folds",
    "compare_models",
    "evaluate_champion",
    "evaluate_model",
    "fetch_data",
    "notify_exit",
    "prepare_dataset",
    "promote_model",
    "read_champion",
    "register_model",
    "train_distributed",
    "train_model",
    "tune_worker",
}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    return request.param


@pytest.fixture
def component(folder):
    return getattr(importlib.import_module(f"raregrade.kubeflow.components.{folder.name}.component"), folder.name)


@pytest.fixture
def metadata(folder):
    return yaml.safe_load((folder / "metadata.yaml").read_text())


def test_these_are_the_components():
    assert {f.name for f in FOLDERS} == NAMES


def test_every_component_is_a_task_of_some_pipeline():
    used = {
        executor["container"]["args"][-1].replace("-", "_")
        for name in PIPELINES
        for executor in next(yaml.safe_load_all(committed_yaml(name).read_text()))["deploymentSpec"][
            "executors"
        ].values()
    }
    assert used == NAMES - {"train_distributed"}  # which an environment of several nodes puts in train_model's place


def test_metadata_and_page_are_what_the_component_says(folder):
    for name, text in documents(folder).items():
        assert (folder / name).read_text() == text, "run `python scripts/component_docs.py` and commit what it writes"


def test_metadata_has_the_keys_of_the_components_repository_of_kubeflow(folder, metadata):
    required = {"name", "stability", "dependencies", "lastVerified"}
    assert required <= set(metadata) <= required | {"tags", "ci", "links", "managed", "description"}
    assert metadata["name"] == folder.name
    assert metadata["stability"] in ("alpha", "beta", "stable")
    (dependency,) = metadata["dependencies"]["kubeflow"]
    assert set(metadata["dependencies"]) <= {"kubeflow", "external_services"}
    assert dependency["name"] == "Pipelines"
    assert re.fullmatch(r"(==|>=|<=|~=)?\d+\.\d+\.\d+", dependency["version"])
    assert isinstance(metadata["lastVerified"], str)
    assert datetime.fromisoformat(metadata["lastVerified"]).tzinfo is not None
    assert metadata["tags"]
    assert all(isinstance(value, str) for value in [metadata["description"], *metadata["tags"]])


def test_its_page_describes_everything_that_goes_in_and_out(folder, component):
    page = (folder / "README.md").read_text()
    assert page.startswith(f"# {folder.name}\n\n{component.component_spec.description}\n")
    for specs in (component.component_spec.inputs, component.component_spec.outputs):
        assert all(re.search(rf"^\| `{name}` \| \S+ \| \w.+ \|$", page, re.M) for name in specs or ())


def test_the_image_is_the_one_resolved_in_one_place(component):
    assert component.component_spec.implementation.container.image == IMAGE


@pytest.mark.parametrize(
    ("variable", "image"), [("", f"localhost/raregrade:{__version__}"), ("r.example/x:1", "r.example/x:1")]
)
def test_the_image_follows_the_environment_variable_or_the_package_version(variable, image):
    code = "from raregrade.kubeflow.images import IMAGE; print(IMAGE)"
    environment = {**os.environ, "RAREGRADE_IMAGE": variable}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == image


def test_nothing_is_installed_when_the_component_runs(component):
    container = component.component_spec.implementation.container
    text = "\n".join([*container.command, *container.args])
    assert "pip install" not in text
    assert "ensurepip" not in text


def test_the_body_is_imports_one_call_of_its_step_and_handing_over(folder):
    """No branches, loops or arithmetic: what is to be computed belongs in the step."""
    (function,) = [n for n in ast.parse((folder / "component.py").read_text()).body if isinstance(n, ast.FunctionDef)]
    assert not [
        n
        for n in ast.walk(function)
        if isinstance(n, ast.If | ast.For | ast.While | ast.BinOp) and not isinstance(getattr(n, "op", None), ast.Div)
    ]
    statements = [n for n in function.body[1:] if not isinstance(n, ast.ImportFrom)]
    assert len(statements) <= 2
    assert all(isinstance(n, ast.Expr | ast.Return) and isinstance(n.value, ast.Call) for n in statements)
    called = [n.func for statement in statements for n in ast.walk(statement) if isinstance(n, ast.Call)]
    (step,) = [f.id for f in called if isinstance(f, ast.Name) and f.id not in ("Path", "int")]
    assert {f.value.id for f in called if isinstance(f, ast.Attribute)} == {"task_io"}
    imports = {a.name: n.module for n in ast.walk(function) if isinstance(n, ast.ImportFrom) for a in n.names}
    assert imports[step].startswith("raregrade.steps.")
    assert f"Calls the step `{imports[step]}.{step}`" in (folder / "README.md").read_text()
    assert all(name.split(".")[0] in ("raregrade", "pathlib") for name in imports.values())
