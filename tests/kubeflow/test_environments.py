"""Settings of a cluster: the files in the repository, what is refused, and which image comes out."""

import subprocess
from pathlib import Path

import pytest
import yaml

from raregrade import __version__
from raregrade.errors import UserError
from raregrade.kubeflow.environments import Environment, load_environment
from raregrade.kubeflow.images import choose_image, pinned_image

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"host": "https://kubeflow.example.org", "image": "registry.example/raregrade"}


def written(tmp_path, **changes):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return str(path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/environments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_environment_in_the_repository_is_valid_and_says_what_each_kind_of_task_gets(path):
    environment = load_environment(path.stem)
    assert set(environment.tasks) == {"data", "train", "evaluate", "light"}
    assert environment.checkpoints is not None
    assert all(secret.env for secret in environment.secrets)


def test_what_is_left_out_has_a_default(tmp_path):
    environment = load_environment(written(tmp_path))
    assert environment.task("train").retries == 2
    assert environment.distributed.nodes == 1


def test_an_unknown_environment_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"unknown environment 'staging': .*environments has dev, prod\."):
        load_environment("staging")


def test_an_environment_of_the_folder_one_works_in_goes_before_those_of_the_checkout(tmp_path, monkeypatch):
    folder = tmp_path / "configs" / "environments"
    folder.mkdir(parents=True)
    (folder / "staging.yaml").write_text(yaml.safe_dump(SMALL))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert load_environment("staging").host == SMALL["host"]
    with pytest.raises(UserError, match=r"unknown environment 'dev': .*has staging\."):
        load_environment("dev")


def test_an_installed_package_without_such_a_folder_asks_for_a_file(monkeypatch):
    monkeypatch.setattr("raregrade.kubeflow.environments.checkout", lambda: None)
    with pytest.raises(UserError, match=r"no folder configs/environments here or above.*the path of a \.yaml file"):
        load_environment("dev")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hosst": "https://x"}, r"hosst: unknown key \(did you mean 'host'\?\)"),
        ({"host": "kubeflow.example.org"}, r"host = 'kubeflow.example.org': not of the form expected"),
        ({"namespace": "Team A"}, r"namespace = 'Team A'"),
        ({"tasks": {"train": {"memory": "4 GB"}}}, r"tasks\.train\.memory = '4 GB'"),
        ({"tasks": {"train": {"cpu": 2}}}, r"tasks\.train\.cpu = 2"),
        ({"tasks": {"training": {}}}, r"tasks\.training"),
        (
            {"tasks": {"train": {"acelerators": 1}}},
            r"tasks\.train\.acelerators: unknown key \(did you mean 'accelerators'",
        ),
        ({"tasks": {"train": {"timeout_seconds": 5}}}, r"tasks\.train\.timeout_seconds = 5"),
        ({"secrets": [{"name": "s", "env": {"key": "NOT-A-NAME"}}]}, r"secrets\.0\.env\.key = 'NOT-A-NAME'"),
        ({"secrets": [{"name": "s", "env": {}}]}, r"secrets\.0\.env"),
        ({"store": "/mnt/data/store"}, r"store: '/mnt/data/store' is on none of the volumes \(there are none\)"),
        ({"volumes": [{"claim": "a", "path": "/d"}, {"claim": "b", "path": "/d"}]}, r"two of them have the same path"),
        ({"volumes": [{"claim": "a", "path": "relative"}]}, r"volumes\.0\.path = 'relative'"),
        ({"distributed": {"nodes": 2}}, r"give checkpoints, a folder on a volume that all nodes mount"),
        ({"tolerations": [{"operator": "Exists", "value": "x"}]}, r"operator Exists takes no value"),
        ({"tolerations": [{"operator": "Equal"}]}, r"give the key"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, r"tracking_uri = 'sqlite:///mlflow.db'"),
        ({"accelerator": {"type": "gpu"}}, r"accelerator\.type = 'gpu'"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(tmp_path, changes, problem):
    with pytest.raises(UserError, match=problem) as caught:
        load_environment(written(tmp_path, **changes))
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'} is wrong:")


@pytest.mark.parametrize("text", ["[1, 2]", "host: [", ""])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"x\.yaml"):
        load_environment(str(tmp_path / "x.yaml"))


@pytest.mark.parametrize(
    "reference",
    ["registry.example/raregrade:4f2a", "registry.example:5000/team/raregrade:v1.2", f"r.example/x@sha256:{'0' * 64}"],
)
def test_an_image_that_stays_is_taken(reference):
    assert pinned_image(reference) == reference


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("registry.example/raregrade", "has no tag"),
        ("registry.example:5000/raregrade", "has no tag"),
        ("registry.example/raregrade:latest", "another image tomorrow"),
    ],
)
def test_an_image_that_moves_is_refused(reference, problem):
    with pytest.raises(UserError, match=problem):
        pinned_image(reference)


def environment(**changes):
    return Environment.model_validate({**SMALL, **changes})


def test_what_is_asked_for_goes_before_the_image_of_the_environment():
    assert choose_image(environment(), "other.example/x:1") == "other.example/x:1"
    assert choose_image(environment(image="registry.example/raregrade:7"), None) == "registry.example/raregrade:7"
    with pytest.raises(UserError, match="another image tomorrow"):
        choose_image(environment(image="registry.example/raregrade:latest"), None)


def test_a_repository_is_tagged_with_the_commit(monkeypatch):
    monkeypatch.setenv("RAREGRADE_GIT_COMMIT", "4f2a")
    assert choose_image(environment(), None) == "registry.example/raregrade:4f2a"


def test_an_installed_package_takes_the_image_of_its_version(monkeypatch):
    monkeypatch.setattr("raregrade.kubeflow.images.checkout", lambda: None)
    assert choose_image(environment(), None) == f"registry.example/raregrade:{__version__}"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository in place of this one."""
    folder = tmp_path / "configs" / "environments"
    folder.mkdir(parents=True)
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr("raregrade.kubeflow.images.checkout", lambda: tmp_path)
    monkeypatch.delenv("RAREGRADE_GIT_COMMIT", raising=False)
    return tmp_path


def test_the_commit_is_that_of_the_checkout_and_changes_have_none(checkout):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    assert choose_image(environment(), None) == f"registry.example/raregrade:{head.stdout.strip()}"
    (checkout / "file").write_text("2")
    with pytest.raises(UserError, match=r"has changes that no commit holds.* --image registry.example/raregrade:TAG"):
        choose_image(environment(), None)
