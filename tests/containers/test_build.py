"""How the image is called and which command builds it, without an engine; and what its locks pin."""

import importlib.util
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from raregrade import __version__
from raregrade.kubeflow.source_digest import source_digest

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
OPTIONS = Namespace(base_image="", torch_index="", flags="")


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", ROOT / "infra" / "docker" / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build"]


@pytest.fixture
def repository(tmp_path):
    """A git repository that holds the package's version and nothing else."""
    module = tmp_path / "src" / "raregrade" / "__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text('__version__ = "1.2.3"\n')
    for arguments in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "first"],
    ):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    return tmp_path


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Put commands of one line on an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name, line):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)

    return add


def test_the_commit_names_the_image_of_a_clean_checkout(build, repository):
    checkout = build.describe(repository)
    head = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert (checkout.version, checkout.revision) == ("1.2.3", head.stdout.strip())
    assert build.tags_of(checkout, "localhost/raregrade", "") == [
        "localhost/raregrade:1.2.3",
        f"localhost/raregrade:{head.stdout.strip()}",
    ]
    assert build.tags_of(checkout, "registry.example/x", "v7")[1] == "registry.example/x:v7"


def test_a_changed_file_shows_in_the_name_and_an_untracked_one_does_not(build, repository):
    (repository / "untracked").write_text("x")
    assert not build.describe(repository).revision.endswith("-dirty")
    (repository / "src" / "raregrade" / "__init__.py").write_text('__version__ = "1.2.4"\n')
    assert build.describe(repository).revision.endswith("-dirty")


def test_a_folder_without_git_has_no_commit(build, repository, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(repository / "nowhere"))
    assert build.describe(repository).revision == "unknown"


def test_docker_builds_where_its_daemon_answers_and_podman_elsewhere(build, commands):
    with pytest.raises(build.BuildError, match="no container engine answers"):
        build.find_engine()
    commands("docker", "echo 'Cannot connect' >&2; exit 1")
    with pytest.raises(build.BuildError, match="no container engine answers"):
        build.find_engine()
    commands("podman", "exit 0")
    assert build.find_engine() == "podman"
    commands("docker", "echo 'Podman Engine;Conmon;'")  # the docker command, led to podman by DOCKER_HOST
    assert build.find_engine() == "podman"
    commands("docker", "echo 'Engine;containerd;'")
    assert build.find_engine() == "docker"
    assert build.find_engine("podman") == "podman"
    with pytest.raises(build.BuildError, match="no command 'nerdctl'"):
        build.find_engine("nerdctl")


def test_the_command_names_version_commit_and_sources(build, repository):
    command = build.build_command("podman", build.describe(repository), ["a:1", "a:2"], OPTIONS, {})
    assert command[:2] == ["podman", "build"]
    assert command[-1] == "."
    given = dict(part.split("=", 1) for part in command if re.match(r"[A-Z_]+=", part))
    assert set(given) == {"VERSION", "REVISION", "CREATED", "SOURCE_DIGEST"}
    assert given["SOURCE_DIGEST"] == source_digest(ROOT / "src" / "raregrade")
    assert [command[i + 1] for i, part in enumerate(command) if part == "--tag"] == ["a:1", "a:2"]


def test_what_the_network_needs_is_handed_on_without_its_value(build, repository, tmp_path):
    certificates = tmp_path / "ca.pem"
    certificates.write_text("x")
    network = {"HTTPS_PROXY": "http://me:word@proxy.example", "SSL_CERT_FILE": str(certificates)}
    command = build.build_command("podman", build.describe(repository), ["a:1"], OPTIONS, network)
    assert command[command.index("HTTPS_PROXY") - 1] == "--build-arg"
    assert "word" not in " ".join(command)
    assert command[command.index("--secret") + 1] == f"id=certificates,src={certificates}"


def test_make_image_prints_what_it_would_run():
    done = subprocess.run(
        [
            "make",
            "--no-print-directory",
            "--dry-run",
            "image",
            "IMAGE=registry.example/x",
            "TORCH_INDEX=https://t.example",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "infra/docker/build.py" in done.stdout
    assert '--name "registry.example/x"' in done.stdout
    assert '--torch-index "https://t.example"' in done.stdout


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_the_source_digest_changes_with_files_but_not_with_caches(tmp_path, change):
    (tmp_path / "sub" / "__pycache__").mkdir(parents=True)
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "sub" / "b.html").write_text("<p>")
    before = source_digest(tmp_path)
    (tmp_path / "sub" / "__pycache__" / "a.pyc").write_text("x")
    assert source_digest(tmp_path) == before
    if change == "content":
        (tmp_path / "sub" / "b.html").write_text("<b>")
    elif change == "name":
        (tmp_path / "a.py").rename(tmp_path / "c.py")
    else:
        (tmp_path / "sub" / "empty").touch()
    assert source_digest(tmp_path) != before


@pytest.mark.parametrize("lock", ["requirements-image.lock", "requirements-build.lock"])
def test_packages_of_the_image_match_the_lock_and_have_a_hash(lock):
    text, everything = (ROOT / lock).read_text(), (ROOT / "requirements.lock").read_text()
    versions = set(PINNED.findall(everything))
    assert PINNED.findall(text)
    assert set(PINNED.findall(text)) - versions == set()
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        assert PINNED.match(entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry
    assert "://" not in text


def test_the_image_has_kubeflows_executor_but_not_its_client():
    names = {name for name, _ in PINNED.findall((ROOT / "requirements-image.lock").read_text())}
    assert "kfp" in names
    assert not names & {"kfp-server-api", "kfp-kubernetes", "kubernetes", "pytest"}


def test_what_the_dockerfile_copies_is_let_through_by_dockerignore():
    dockerfile = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert {source.removeprefix("./") for source in copied} == set(allowed)


def test_the_version_of_the_package_is_the_one_the_build_reads(build):
    assert build.describe(ROOT).version == __version__


@pytest.mark.parametrize(
    ("uid", "reason"), [(0, "no apt-get to install podman with"), (1000, "installing podman takes root")]
)
def test_a_machine_where_no_engine_can_be_set_up_is_told_why(commands, uid, reason):
    commands("id", f"echo {uid}")
    refused = set_up_containers({"PATH": os.environ["PATH"]})
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"containers-for-tests: no container engine here, and {reason}\n"


def test_an_engine_that_is_named_is_taken_as_it_is():
    taken = set_up_containers(os.environ | {"DOCKER_HOST": "unix:///somewhere.sock"})
    assert (taken.returncode, taken.stdout) == (0, "unix:///somewhere.sock\n")


def set_up_containers(environment):
    script = ROOT / "scripts" / "containers-for-tests.sh"
    return subprocess.run(["/bin/bash", script], env=environment, capture_output=True, text=True, check=False)
