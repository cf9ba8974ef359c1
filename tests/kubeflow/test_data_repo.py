"""Raw data from a repository: what is refused before anything is sent to a cluster, and what becomes of the options."""

import pytest

from raregrade.cli.main import run
from raregrade.errors import UserError
from raregrade.kubeflow.pipelines.tasks import data_arguments
from raregrade.kubeflow.submit import check_offline

REPO = "https://git.example.org/team/data.git"


def arguments(**changed):
    return {"raw_data": "data/raw", "data_repo": REPO, "store": "/mnt/store", "tracking_uri": "none"} | changed


@pytest.mark.parametrize("repo", [REPO, "git@git.example.org:team/data.git", "ssh://git.example.org/data", "/mnt/repo"])
def test_a_repository_that_tasks_can_reach_passes_with_a_path_in_it(repo):
    check_offline(arguments(data_repo=repo))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data_repo": "../data"}, r"--data-repo is '../data', a folder of this machine"),
        ({"data_repo": "https://me:secret@git.example.org/data.git"}, "--data-repo holds a password"),
        ({"store": ""}, "--data-repo needs --store"),
        ({"storage": {"url": "study.log"}}, r"tune.storage is 'study.log', a file in this folder.*PGPASSWORD"),
    ],
)
def test_what_a_cluster_could_not_reach_or_should_not_see_is_refused(changed, message):
    with pytest.raises(UserError, match=message) as caught:
        check_offline(arguments(**changed))
    assert "secret@" not in str(caught.value)


def test_a_study_that_all_workers_reach_passes():
    for url in ("postgresql://me@db/optuna", "/mnt/store/study.log"):
        check_offline(arguments(storage={"url": url}))


def test_without_a_revision_a_repository_is_read_at_its_default_branch(tmp_path):
    assert data_arguments("data/raw", REPO, None, "/s")["data_revision"] == ""
    assert data_arguments(str(tmp_path), "", None, "/s")["data_revision"].startswith("untracked-")


def test_a_dry_run_takes_a_path_in_the_repository(workplace, capsys):
    options = ["--host", "https://kubeflow.example.org", "--dry-run", "--no-check-image"]
    assert run(["pipeline", "submit", "compare_losses", *options, "--data-repo", REPO, "--store", "/mnt/store"]) == 0
    assert "would send compare_losses" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_here_fetches_from_a_repository_and_says_what_is_wrong_with_it(workplace, capsys):
    options = ["--data-repo", str(workplace / "nowhere"), "--data-revision", "main"]
    assert run(["pipeline", "run", "cross_validate", *options]) == 1
    shown = capsys.readouterr()
    assert "task fetch-data failed: cannot fetch revision main of" in shown.err
    assert "notify-exit: done" in shown.out
    assert (workplace / ".raregrade" / "pipelines" / "cross_validate").is_dir()
