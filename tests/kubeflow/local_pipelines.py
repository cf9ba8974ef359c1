"""Running a pipeline as a user does: in a folder that has a params.yaml, by the command."""

import json
import os
import subprocess
import sys

import yaml

from raregrade.config import params_from_dict, section
from raregrade.steps.phantom import phantom

_COMMAND = "import sys; from raregrade.cli.main import main; sys.exit(main())"


def working_folder(folder, raw_params):
    """Make ``folder`` one to run pipelines in, with the phantom of its parameters drawn and MLflow in a file."""
    raw_params["compare"]["seeds"] = [1]
    raw_params["tracking"]["uri"] = "sqlite:///mlflow.db"
    (folder / "params.yaml").write_text(yaml.safe_dump(raw_params))
    draw(folder / "data" / "raw" / "phantom", raw_params)
    return folder


def draw(out, raw_params, patients=None):
    """Draw the phantom of the parameters, with more ``patients`` where given: those before stay as they are."""
    changed = {**raw_params, "phantom": {**raw_params["phantom"], **({"patients": patients} if patients else {})}}
    phantom(section(params_from_dict(changed), "phantom"), out)


def pipeline_run(folder, name, *options, **environment):
    """Run the command in a process of its own, and return it finished."""
    command = [sys.executable, "-c", _COMMAND, "pipeline", "run", name, *options]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def newest_run(folder, name):
    """The folder of the last run of a pipeline."""
    return max((folder / ".raregrade" / "pipelines" / name).glob(f"{name.replace('_', '-')}-*/"))


def read(path):
    return json.loads(path.read_text())
