"""Write metadata.yaml and README.md of every component from its component.py: `python scripts/component_docs.py`.

The function's signature and docstring say what goes in and out. The module's docstring says the rest, and ends in a
line of tags. The keys of metadata.yaml are those of kubeflow/pipelines-components.
"""

from __future__ import annotations

import ast
import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

COMPONENTS = Path(__file__).resolve().parents[1] / "components"
VERIFIED = "2026-11-25T00:00:00Z"  # when the pipelines last ran with the pinned version of kfp
_TYPES = {"Dict": "dict", "List": "list", "List[Dict]": "list[dict]", "String": "str"}


def documents(folder: Path) -> dict[str, str]:
    """The content of metadata.yaml and README.md of the component in ``folder``, by file name."""
    module = importlib.import_module(f"raregrade.kubeflow.components.{folder.name}.component")
    spec = getattr(module, folder.name).component_spec
    _, notes, tags = _parts(module.__doc__ or "", folder)
    metadata = {
        "name": folder.name,
        "description": spec.description,
        "stability": "alpha",
        "dependencies": {"kubeflow": [{"name": "Pipelines", "version": f">={version('kfp')}"}]},
        "tags": tags,
        "lastVerified": VERIFIED,
    }
    page = [f"# {folder.name}", spec.description, *notes, f"Calls the step `{_step(folder)}`."]
    page += [_table(kind, specs) for kind, specs in (("input", spec.inputs), ("output", spec.outputs)) if specs]
    return {
        "metadata.yaml": yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=120),
        "README.md": "\n\n".join(page) + "\n",
    }


def _parts(docstring: str, folder: Path) -> tuple[str, list[str], list[str]]:
    """Summary, paragraphs and tags of a module's docstring."""
    summary, *notes = docstring.strip().split("\n\n")
    if not notes or not notes[-1].startswith("Tags: "):
        raise SystemExit(f"{folder}/component.py: the docstring of the module must end in `Tags: one, another`.")
    return summary, notes[:-1], notes[-1].removeprefix("Tags: ").split(", ")


def _step(folder: Path) -> str:
    """The function that the component calls, by the import in its body."""
    tree = ast.parse((folder / "component.py").read_text(encoding="utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("raregrade.")]
    (step,) = (node for node in imports if str(node.module).startswith("raregrade.steps."))
    return f"{step.module}.{step.names[0].name}"


def _table(kind: str, specs: dict[str, Any]) -> str:
    rows = [f"| `{name}` | {_type(spec)} | {_description(name, spec)} |" for name, spec in specs.items()]
    return "\n".join([f"| {kind} | type | |", "|---|---|---|", *rows])


def _type(spec: Any) -> str:
    name = spec.type.split("@")[0].removeprefix("system.")
    return f"list[{name}]" if getattr(spec, "is_artifact_list", False) else _TYPES.get(name, name)


def _description(name: str, spec: Any) -> str:
    if not spec.description:
        raise SystemExit(f"{name} is not described in the docstring of its component.")
    return " ".join(spec.description.split())


def main() -> int:
    """Write all of them."""
    for source in sorted(COMPONENTS.glob("*/component.py")):
        for name, text in documents(source.parent).items():
            (source.parent / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
