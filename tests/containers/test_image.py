"""What the image holds and says about itself, and what it does when a cluster holds it tightly."""

import json
import re
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from raregrade import __version__

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def sbom(image, contain):
    _, text, _ = contain("cat", image.labels["raregrade.sbom"])
    return json.loads(text)


def pinned(lock):
    """Name and version of every entry; newer Pythons have entries of their own."""
    return set(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / lock).read_text(), re.MULTILINE))


def test_the_user_is_a_number_other_than_root(image):
    uid, _, gid = image.attrs["Config"]["User"].partition(":")
    assert int(uid) > 0
    assert int(gid) > 0


def test_the_labels_name_version_and_commit(image):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    commit = image.labels["org.opencontainers.image.revision"]
    assert commit.removesuffix("-dirty") == head.stdout.strip()
    assert image.labels["org.opencontainers.image.version"] == __version__
    assert f"RAREGRADE_GIT_COMMIT={commit}" in image.attrs["Config"]["Env"]


def test_the_label_of_the_sources_is_their_digest_as_they_lie_in_the_image(image, contain):
    program = (ROOT / "src" / "raregrade" / "kubeflow" / "source_digest.py").read_text()
    program += "import raregrade\nprint(source_digest(Path(raregrade.__file__).parent))\n"
    assert contain("python", "-c", program)[1].strip() == image.labels["raregrade.source"]


def test_every_package_is_installed_in_the_version_of_the_lock(sbom):
    python = [c for c in sbom["components"] if c["purl"].startswith("pkg:pypi/")]
    held = {(c["name"], c["version"].split("+")[0]) for c in python}
    assert held - pinned("requirements-image.lock") == {("raregrade", __version__)}
    needed = {"torch", "kfp", "mlflow", "dvc", "optuna", "psycopg2-binary", "boto3", "dlordinal"}
    assert needed <= {name for name, _ in held}


def test_the_bill_of_materials_lists_packages_and_dependencies(sbom, image):
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    references = {c["bom-ref"] for c in sbom["components"]}
    assert len(references) == len(sbom["components"])
    names = {c["name"]: c for c in sbom["components"]}
    assert names["torch"]["purl"].startswith("pkg:pypi/torch@")
    assert names["raregrade"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert names["tini"]["purl"].startswith("pkg:deb/debian/tini@")
    needed = {entry["ref"]: entry["dependsOn"] for entry in sbom["dependencies"]}
    assert names["torch"]["bom-ref"] in needed[names["raregrade"]["bom-ref"]]
    assert {ref for refs in needed.values() for ref in refs} <= references
    assert sbom["metadata"]["component"]["properties"] == [
        {"name": "raregrade:revision", "value": image.labels["org.opencontainers.image.revision"]}
    ]


def test_nothing_of_the_machine_that_built_it_is_left_in_it(contain, image, tmp_path):
    settings = json.dumps(image.attrs["Config"])
    assert str(ROOT) not in settings
    assert "SSL_CERT_FILE" not in settings
    left = "ls -d /locks /source /wheel /opt/tools; command -v uv; find /run/secrets /var/cache/uv -type f; ls /opt"
    _, out, _ = contain("sh", "-c", left)
    assert out.split() == ["raregrade"]


@pytest.mark.parametrize("user", ["10001:10001", "4321:0"])
def test_every_command_starts_under_a_read_only_root_whoever_the_user_is(contain, user):
    code, out, err = contain("raregrade", "--version", user=user)
    assert (code, out.split()[-1]) == (0, __version__), err
    imports = "import raregrade.training.loop, matplotlib.pyplot, mlflow, optuna, dvc.api, kfp.dsl.executor_main"
    code, _, err = contain("python", "-c", imports, user=user, environment={"_KFP_RUNTIME": "true"})
    assert (code, err) == (0, "")


def test_the_exit_code_of_the_command_is_that_of_the_container(contain):
    code, _, err = contain("raregrade", "train", "--data", "/nowhere", "--loss", "ce", "--out", "/tmp/model")
    assert code == 2
    assert "Traceback" not in err


def test_a_stopped_training_exits_with_75_and_resumes_elsewhere(engine, image, project, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    command = ["raregrade", "train", "--data", "/data", "--loss", "ce", "--seed", "1", "--params", "/params.yaml"]
    command += ["--out", "/out/model", "--checkpoints", "/out/checkpoints"]
    command += ["--set", "train.epochs=8", "--set", "tracking.uri=none"]
    settings = {
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777"},
        "cap_drop": ["ALL"],
        "network_mode": "host",
        "volumes": [
            f"{project / 'data' / 'prepared'}:/data:ro",
            f"{project / 'params.yaml'}:/params.yaml:ro",
            f"{out}:/out",
        ],
    }
    first = engine.containers.create(image.id, command, **settings)
    try:
        first.start()
        wait_for(first, "epoch 1")
        first.stop(timeout=60)
        assert first.wait()["StatusCode"] == 75, first.logs().decode()
    finally:
        first.remove(force=True)
    assert not (out / "model").exists()
    assert [path for path in (out / "checkpoints").rglob("*") if path.is_file()]

    second = engine.containers.create(image.id, command, **settings)
    try:
        second.start()
        assert second.wait(timeout=300)["StatusCode"] == 0, second.logs().decode()
        assert "resumed after epoch" in second.logs().decode()
    finally:
        second.remove(force=True)
    assert (
        json.loads((out / "model" / "model.json").read_text())["git_commit"]
        == (image.labels["org.opencontainers.image.revision"])
    )


def wait_for(container, words):
    deadline = time.monotonic() + 120
    while words not in container.logs().decode():
        container.reload()
        assert container.status == "running", container.logs().decode()
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.1)


def test_a_change_of_the_source_builds_anew_what_comes_after_the_packages(engine, image, tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE", ".dockerignore"):
        shutil.copy(ROOT / name, tmp_path)
    for lock in ROOT.glob("requirements*.lock"):
        shutil.copy(lock, tmp_path)
    for name in ("src", "infra/docker", "pipelines", "components"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "src" / "raregrade" / "errors.py").open("a") as source:
        source.write(f"# {uuid.uuid4()}\n")
    command = [sys.executable, "infra/docker/build.py", "--name", "localhost/raregrade-changed", "--tag", "tests"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    changed = engine.images.get("localhost/raregrade-changed:tests")
    try:
        before, after = (i.attrs["RootFS"]["Layers"] for i in (image, changed))
        same = [one for one, other in zip(before, after, strict=True) if one == other]
        assert 0 < len(before) - len(same) <= 3
        assert changed.labels["raregrade.source"] != image.labels["raregrade.source"]
    finally:
        engine.images.remove(changed.id, force=True)
