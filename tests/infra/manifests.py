"""The manifests as kubectl renders them, and as they lie in their files."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
OVERLAYS = sorted(
    str(path.parent.relative_to(KUBERNETES)) for path in (KUBERNETES / "overlays").rglob("kustomization.yaml")
)
Document = dict[str, Any]
# Older ones know neither components nor `labels` with includeTemplates.
_OLDEST_KUBECTL = (1, 27)


@functools.cache
def rendered(overlay: str) -> tuple[Document, ...]:
    """What ``kubectl kustomize`` makes of an overlay; skips the test where there is no kubectl new enough."""
    return render(KUBERNETES / overlay)


def render(folder: Path) -> tuple[Document, ...]:
    """As ``rendered``, for any folder with a kustomization."""
    result = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


@functools.cache
def kubectl() -> str:
    """Where kubectl is; skips the test where it is missing or too old."""
    path = shutil.which("kubectl")
    if path is None:
        pytest.skip("kubectl is not installed; the files are still validated one by one")
    said = json.loads(
        subprocess.run([path, "version", "--client", "--output=json"], capture_output=True, check=True).stdout
    )
    version = re.match(r"v(\d+)\.(\d+)", said["clientVersion"]["gitVersion"])
    assert version, said
    if (int(version[1]), int(version[2])) < _OLDEST_KUBECTL:
        pytest.skip(f"kubectl {version[0]} is older than 1.27; the files are still validated one by one")
    return path


def kustomizations() -> list[Path]:
    """All kustomization.yaml files, whatever they are part of."""
    return sorted(KUBERNETES.rglob("kustomization.yaml"))


def documents_in(path: Path) -> list[Document]:
    """The documents of one YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def closure(folder: Path) -> list[Document]:
    """The manifests that a kustomization brings in, its own and those of what it builds on, before any patch."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    documents = []
    for name in [*kustomization.get("resources", []), *kustomization.get("components", [])]:
        path = (folder / name).resolve()
        documents += closure(path) if path.is_dir() else documents_in(path)
    for generator in kustomization.get("configMapGenerator", []):
        data = dict(literal.split("=", 1) for literal in generator.get("literals", []))
        data |= {Path(name).name: (folder / name).read_text() for name in generator.get("files", [])}
        documents.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
        )
    return documents
