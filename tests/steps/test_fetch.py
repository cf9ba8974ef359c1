"""``fetch`` from a git repository whose data DVC keeps on an S3 server, which runs and checks keys."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from raregrade.cli.main import run
from raregrade.data.revisions import masked
from raregrade.errors import DataError
from raregrade.steps.fetch import fetch
from tests.servers import S3, s3_server

TOOLS = Path(sys.executable).parent
IMAGES = 12


@dataclass(frozen=True)
class Origin:
    """A repository with two revisions of ``data/mine`` (v1 and main) and one file, ``grades.npz``."""

    repo: Path
    s3: S3

    def objects(self) -> list[Path]:
        """The files in the remote, by DVC's md5."""
        return sorted(path for path in self.s3.folder.rglob("*") if path.is_file() and not path.name.endswith(".dir"))

    def object_of(self, file: Path) -> Path:
        import hashlib

        md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        (found,) = [path for path in self.objects() if path.parent.name + path.name == md5]
        return found


def write_images(folder: Path, first: int, number: int) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i in range(first, first + number):
        (folder / "images" / f"{i}.png").write_bytes(b"image %d " % i * 100)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    root = tmp_path_factory.mktemp("origin")
    with s3_server(root / "s3") as s3:
        bucket = s3.create_bucket("data")
        repo = root / "repo"
        repo.mkdir()
        author = {
            f"GIT_{who}_{what}": "someone@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment = os.environ | s3.environment() | author | {"DVC_NO_ANALYTICS": "1"}
        environment["PATH"] = f"{TOOLS}{os.pathsep}{environment['PATH']}"

        def call(*command):
            subprocess.run(command, cwd=repo, env=environment, check=True, capture_output=True)

        call("git", "init", "--initial-branch", "main")
        call("dvc", "init")
        call("dvc", "remote", "add", "-d", "store", f"{bucket}/dvc")
        call("dvc", "remote", "modify", "store", "endpointurl", s3.endpoint)
        write_images(repo / "data" / "mine", 0, IMAGES)
        for name in ("grades.npz", "same.npz"):
            (repo / name).write_bytes(b"arrays")
        (repo / "notes.txt").write_text("in git alone")
        call("dvc", "add", "data/mine", "grades.npz", "same.npz")
        call("git", "add", "--all")
        call("git", "commit", "--message", "first")
        call("git", "tag", "v1")
        write_images(repo / "data" / "mine", IMAGES, 1)
        call("dvc", "add", "data/mine")
        call("git", "commit", "--all", "--message", "second")
        call("dvc", "push", "--all-commits")
        shutil.rmtree(repo / ".dvc" / "cache")  # what is fetched can come from the server alone
        yield Origin(repo, s3)


@pytest.fixture
def credentials(origin, monkeypatch):
    for name, value in origin.s3.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def get(origin, credentials, tmp_path, no_tracking):
    """Fetch from the repository, by the URL that a task would be given."""

    given = {"repo": origin.repo.as_uri(), "revision": "v1", "store": tmp_path / "store", "tracking": no_tracking}

    def get(path="data/mine", **others):
        return fetch(path, tmp_path / "out", **(given | others))

    return get


slow = pytest.mark.slow


@slow
def test_a_folder_comes_at_its_revision_and_is_described_by_reference(get, origin, tmp_path):
    fetched = get()
    folder = Path(fetched["path"])
    assert sorted(int(path.stem) for path in (folder / "images").iterdir()) == list(range(IMAGES))
    assert (folder / "images" / "3.png").read_bytes() == b"image 3 " * 100
    assert folder == tmp_path / "store" / "raw" / fetched["md5"].removesuffix(".dir") / "mine"
    commit = subprocess.run(
        ["git", "rev-parse", "v1"], cwd=origin.repo, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (fetched["revision"], fetched["files"]) == (commit, IMAGES)
    assert fetched["size"] == sum(file.stat().st_size for file in folder.rglob("*.png"))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["fetched.json"]
    assert json.loads((tmp_path / "out" / "fetched.json").read_text()) == fetched


@slow
def test_a_revision_has_its_own_folder_and_is_fetched_once(get, origin):
    first, second = get(), get(revision="main")
    assert first["path"] != second["path"]
    assert second["files"] == IMAGES + 1
    stamps = {file: file.stat().st_mtime_ns for file in Path(first["path"]).rglob("*.png")}
    hidden = origin.s3.folder.with_name("hidden")
    origin.s3.folder.rename(hidden)  # nothing can be fetched now
    try:
        assert get() == first
    finally:
        hidden.rename(origin.s3.folder)
    assert {file: file.stat().st_mtime_ns for file in Path(first["path"]).rglob("*.png")} == stamps


@slow
def test_a_single_file_comes_under_its_name(get):
    fetched = get("grades.npz")
    assert Path(fetched["path"]).read_bytes() == b"arrays"
    assert (fetched["files"], fetched["size"]) == (1, 6)


@slow
def test_the_same_data_under_another_name_are_found_too(get):
    one, two = get("grades.npz"), get("same.npz")
    assert (one["md5"], Path(one["path"]).name, Path(two["path"]).name) == (two["md5"], "grades.npz", "same.npz")
    assert Path(one["path"]).read_bytes() == Path(two["path"]).read_bytes() == b"arrays"


@slow
def test_it_needs_no_git_program_and_no_checkout(get, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert get()["files"] == IMAGES


@slow
def test_it_needs_no_home_and_no_name_of_its_user_as_in_a_container(get, monkeypatch, tmp_path):
    def nobody(_):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert get()["files"] == IMAGES
    assert "LOGNAME" not in os.environ


@slow
def test_an_interrupted_fetch_goes_on_where_it_stopped(get, origin, tmp_path):
    lost = origin.object_of(origin.repo / "data" / "mine" / "images" / "7.png")
    aside = lost.with_name("aside")
    lost.rename(aside)
    try:
        with pytest.raises(DataError, match=r"cannot fetch data/mine/images/7.png at revision"):
            get()
    finally:
        aside.rename(lost)
    (part,) = (tmp_path / "store" / "raw").glob(".*.part")
    assert not [path for path in (tmp_path / "store" / "raw").iterdir() if not path.name.startswith(".")]
    kept = {file.name: file.stat().st_mtime_ns for file in part.rglob("*.png") if file.name != "7.png"}
    assert kept
    spoilt = next(file for file in part.rglob("*.png") if file.name != "7.png")
    spoilt.write_bytes(b"half of it")
    fetched = get()
    now = {file.name: file for file in Path(fetched["path"]).rglob("*.png")}
    assert len(now) == IMAGES
    assert now[spoilt.name].read_bytes() == b"image %d " % int(spoilt.stem) * 100
    assert all(now[name].stat().st_mtime_ns == stamp for name, stamp in kept.items() if name != spoilt.name)


@slow
def test_a_broken_file_in_the_remote_leaves_nothing_that_looks_complete(get, origin, tmp_path):
    broken = origin.object_of(origin.repo / "data" / "mine" / "images" / "5.png")
    content = broken.read_bytes()
    broken.write_bytes(content[::-1])
    try:
        with pytest.raises(DataError, match=r"data/mine/images/5.png at revision .* arrived with md5 .*dvc push"):
            get()
    finally:
        broken.write_bytes(content)
    assert not [path for path in (tmp_path / "store" / "raw").iterdir() if not path.name.startswith(".")]


@slow
def test_several_tasks_that_want_the_same_data_fetch_them_once(get):
    with ThreadPoolExecutor(3) as pool:
        fetched = list(pool.map(lambda _: get(), range(3)))
    assert fetched[0] == fetched[1] == fetched[2]
    assert fetched[0]["files"] == IMAGES


@slow
def test_wrong_keys_are_an_error_that_names_the_variables(get, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(DataError, match=r"cannot fetch data/mine\S* at revision .*AWS_ACCESS_KEY_ID"):
        get()


@slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"revision": "v9"}, "cannot fetch revision v9 of .*unknown Git revision 'v9'"),
        ({"path": "data/nothing"}, "cannot fetch data/nothing at revision"),
        ({"path": "notes.txt"}, r"notes.txt is not tracked by DVC at revision .*dvc add notes.txt"),
        ({"repo": "file:///nowhere/at/all"}, "cannot fetch revision v1 of file:///nowhere/at/all"),
        ({"store": None}, "give the folder that later steps read"),
    ],
)
def test_what_is_not_there_is_one_clear_error(get, arguments, message):
    with pytest.raises(DataError, match=message):
        get(**arguments)


def test_data_that_lie_there_are_taken_as_they_are(tmp_path, no_tracking):
    write_images(tmp_path / "mine", 0, 3)
    fetched = fetch(str(tmp_path / "mine"), tmp_path / "out", revision="spring", tracking=no_tracking)
    assert (fetched["path"], fetched["revision"], fetched["files"]) == (str(tmp_path / "mine"), "spring", 3)
    assert (fetched["md5"], fetched["repo"]) == ("", "")


def test_nothing_where_the_data_should_lie_is_an_error(tmp_path, no_tracking):
    with pytest.raises(DataError, match=r"there are no raw data at .*Mount the volume"):
        fetch(str(tmp_path / "mine"), tmp_path / "out", tracking=no_tracking)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("repo", "shown"),
    [
        ("https://me:secret@git.example.org/data.git", "https://git.example.org/data.git"),
        ("https://git.example.org/data.git", "https://git.example.org/data.git"),
        ("git@git.example.org:team/data.git", "git@git.example.org:team/data.git"),
        ("/srv/data", "/srv/data"),
    ],
)
def test_passwords_are_never_shown(repo, shown):
    assert masked(repo) == shown


@slow
@pytest.mark.usefixtures("credentials")
def test_the_command_fetches_what_params_name_and_says_what_is_next(origin, tmp_path, capsys):
    (tmp_path / "params.yaml").write_text(
        "data: {source: folder, path: data/mine, task: ordinal, classes: [a, b], label_column: grade}\n"
        "losses: {ce: {}}\ncompare: {losses: [ce], seeds: [1], baseline: ce}\ntracking: {uri: none}\n"
    )
    options = ["--repo", str(origin.repo), "--revision", "main", "--store", str(tmp_path / "store")]
    assert run(["fetch", *options, "--params", str(tmp_path / "params.yaml")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    path = Path(first.split(": ")[0])
    assert f": {IMAGES + 1} files, 0.0 MB, revision " in first
    assert len(list(path.rglob("*.png"))) == IMAGES + 1
    assert second == f"prepare them with `--set data.path={path}`"
