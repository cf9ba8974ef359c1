"""The engine, the image built from this checkout, and a folder to work in like a checkout.

Without an engine these tests are skipped with the reason: containers need one, and not every machine may have one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from raregrade import __version__  # noqa: E402
from raregrade.config import load_params  # noqa: E402
from raregrade.errors import UserError  # noqa: E402
from raregrade.kubeflow.local_docker import find_engine  # noqa: E402 - found through the line above

NAME = "localhost/raregrade-tests"


@pytest.fixture(scope="session")
def engine():
    """A client of the engine; its address is in DOCKER_HOST, for the commands that tests start."""
    import docker

    try:
        address = find_engine()
    except UserError as err:
        pytest.skip(f"{err} scripts/containers-for-tests.sh sets an engine up where the machine allows it.")
    client = docker.DockerClient(base_url=address, timeout=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine):
    """Our image, built from this checkout by the command behind ``make image``."""
    command = [sys.executable, "infra/docker/build.py", "--name", NAME, "--tag", "tests"]
    run(ROOT, *command)
    return engine.images.get(f"{NAME}:{__version__}")


@pytest.fixture(scope="session")
def name(image):
    """What the image is called."""
    return f"{NAME}:{__version__}"


@pytest.fixture(scope="session")
def command():
    """The function that runs a command in a folder."""
    return run


@pytest.fixture
def contain(engine, image):
    """Run a command in the image as a cluster would, and return its exit code, standard output and error."""

    def contain(*command, **settings):
        container = engine.containers.create(image.id, list(command), **held_tightly(), **settings)
        try:
            container.start()
            code = container.wait(timeout=300)["StatusCode"]
            return code, container.logs(stderr=False).decode(), container.logs(stdout=False).decode()
        finally:
            container.remove(force=True)

    return contain


def held_tightly():
    """What a pod of a careful cluster gets, and nothing more."""
    return {
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "network_mode": "host",
    }


@pytest.fixture(scope="session")
def tiny():
    """A params.yaml that trains in seconds: 40 patients, images of 32 px, one epoch, numbers that repeat exactly."""
    params = load_params(ROOT / "params.yaml").to_dict()
    params["phantom"] |= {"patients": 40, "image_size": 32}
    params["data"]["image_size"] = 32
    params["train"] |= {"backbone": "resnet10t", "epochs": 1, "warmup_epochs": 0.5, "precision": "float32"}
    params["train"] |= {"threads": 1, "lr": 1e-3}
    params["compare"] |= {"losses": ["ce", "cdw_ce"], "seeds": [1], "baseline": "ce"}
    params["gate"] = [{"metric": "val_qwk", "threshold": -1.0}]
    params["alarms"]["refuse"] = False  # after one epoch a model misses grades
    params["register"]["name"] = "phantom-severity"
    params["tracking"] |= {"uri": "sqlite:///mlflow.db", "experiment": "containers"}
    return params


@pytest.fixture(scope="session")
def project(tmp_path_factory, tiny):
    """A folder with the code and params.yaml, in which ``dvc repro`` has run."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("components", "pipelines", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", "data/raw/dvc.yaml", "register/dvc.yaml", "plots/epochs.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny))
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro", "register/dvc.yaml")
    return folder


@pytest.fixture
def work(tmp_path, tiny):
    """A folder of its own to run pipelines in, with an empty folder of raw images."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny))
    (tmp_path / tiny["data"]["path"]).mkdir(parents=True)
    return tmp_path


def run(folder, *command, code=0, **environment):
    """What ``command`` writes in ``folder``, with this environment's tools on PATH; it must end with ``code``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path} | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
