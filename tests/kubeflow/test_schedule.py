"""``raregrade pipeline schedule`` over a real socket: what is set, replaced, held, removed and refused."""

import pytest

from raregrade.cli.main import run
from raregrade.errors import UserError
from raregrade.kubeflow.schedule import read_cron, read_interval
from tests.kubeflow.contract_server import TOKEN, Trouble, kubeflow_server


@pytest.fixture
def server():
    with kubeflow_server() as host:
        yield host


@pytest.fixture
def schedule(server, workplace, monkeypatch):
    """The command, told where the host is."""
    (workplace / "token").write_text(TOKEN)

    def schedule(*arguments, work=True):
        told = ["--host", server.url, "--namespace", "team", "--token-file", "token", "--timeout", "5"]
        data = ["--raw-data", "/mnt/raw", "--data-revision", "r1"] if work else []
        return run(["pipeline", "schedule", *arguments, *told, *data])

    return schedule


def test_a_schedule_arrives_with_catch_up_off_and_one_run_at_a_time(server, schedule, capsys):
    assert schedule("compare_losses", "--cron", "0 3 * * *") == 0
    (made,) = server.state.schedules
    assert made.display_name == "compare_losses"
    assert made.trigger.cron_schedule.cron == "0 0 3 * * *"
    assert (made.no_catchup, made.max_concurrency, made.mode) == (True, "1", "ENABLE")
    assert made.runtime_config.parameters["data_revision"] == "r1"
    assert made.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "compare-losses"
    out = capsys.readouterr().out
    assert "compare_losses: cron 0 0 3 * * *, enabled" in out
    assert f"{server.url}/#/recurringrun/details/{made.recurring_run_id}" in out


def test_scheduled_runs_compute_anew_unless_new_data_would_be_noticed(server, schedule):
    """Images that change where they lie change no argument: the first run would be the last one that computes."""

    def trainings_cached():
        components = server.state.schedules[-1].pipeline_spec["pipeline_spec"]["components"]
        loops = [c["dag"]["tasks"] for c in components.values() if "train-model" in c.get("dag", {}).get("tasks", {})]
        return [tasks["train-model"]["cachingOptions"] for tasks in loops]

    repository = ["--data-repo", "https://git.example/data.git", "--store", "/mnt/store"]
    for arguments, expected in (
        ([], [{}]),
        (["--cache"], [{"enableCache": True}]),
        (repository, [{"enableCache": True}]),
        ([*repository, "--no-cache"], [{}]),
    ):
        assert schedule("compare_losses", "--interval", "1d", *arguments) == 0
        assert trainings_cached() == expected


def test_an_interval_arrives_in_seconds(server, schedule):
    assert schedule("compare_losses", "--interval", "6h", "--disable") == 0
    (made,) = server.state.schedules
    assert int(made.trigger.periodic_schedule.interval_second) == 6 * 3600
    assert made.mode == "DISABLE"


def test_a_schedule_replaces_the_one_of_its_name_and_no_other(server, schedule, capsys):
    schedule("compare_losses", "--interval", "1d")
    schedule("compare_losses", "--interval", "1d", "--name", "other")
    schedule("compare_losses", "--interval", "2d", "--name", "third")
    assert schedule("compare_losses", "--interval", "1w") == 0
    assert "replaced the schedule of that name" in capsys.readouterr().out
    assert sorted(
        (s.display_name, int(s.trigger.periodic_schedule.interval_second)) for s in server.state.schedules
    ) == [
        ("compare_losses", 7 * 86400),
        ("other", 86400),
        ("third", 2 * 86400),
    ]


def test_a_schedule_that_is_refused_leaves_the_one_before_it(server, schedule, capsys):
    schedule("compare_losses", "--interval", "1d")
    server.troubles["POST /recurringruns"] = Trouble(400, "InvalidInputError: no")
    assert schedule("compare_losses", "--interval", "1w") == 2
    assert "refuses the request: InvalidInputError: no" in capsys.readouterr().err
    assert [int(s.trigger.periodic_schedule.interval_second) for s in server.state.schedules] == [86400]


def test_schedules_are_listed_over_all_pages(server, schedule, capsys):
    for name in ("one", "two", "three"):
        schedule("compare_losses", "--interval", "1d", "--name", name)
    capsys.readouterr()
    assert schedule("--list", work=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["schedule", "one", "two", "three"]
    assert "every 86400 s" in lines[1]


def test_a_schedule_is_held_let_run_and_removed(server, schedule, capsys):
    schedule("compare_losses", "--interval", "1d")
    assert schedule("compare_losses", "--disable", work=False) == 0
    assert server.state.schedules[0].status == "DISABLED"
    assert schedule("compare_losses", "--enable", work=False) == 0
    assert server.state.schedules[0].status == "ENABLED"
    assert schedule("compare_losses", "--delete", work=False) == 0
    assert server.state.schedules == []
    assert "compare_losses: deleted" in capsys.readouterr().out


def test_a_schedule_that_is_not_there_is_named_with_those_that_are(server, schedule, capsys):
    schedule("compare_losses", "--interval", "1d", "--name", "nightly")
    assert schedule("compare_losses", "--delete", work=False) == 2
    assert "no schedule is called 'compare_losses'; there is nightly" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare_losses"],
        ["compare_losses", "--cron", "0 3 * * *", "--interval", "1d"],
        ["compare_losses", "--list", "--delete"],
        ["compare_losses", "--cron", "0 3 * * *", "--delete"],
    ],
)
def test_one_thing_at_a_time(server, schedule, capsys, arguments):
    assert schedule(*arguments, work=False) == 2
    assert "give one of --cron, --interval" in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize("arguments", [["--cron", "0 3 * * *"], ["--delete"]])
def test_a_pipeline_must_be_named(server, schedule, capsys, arguments):
    assert schedule(*arguments, work=False) == 2
    assert "which " in capsys.readouterr().err
    assert server.requests == []


def test_what_is_wrong_offline_is_said_before_the_host_is_asked(server, schedule, capsys):
    assert schedule("compare_losses", "--cron", "every night") == 2
    assert "expected `minute hour day month weekday`" in capsys.readouterr().err
    assert schedule("compare_losses", "--interval", "1d", "--set", "train.epochs=many") == 2
    assert server.requests == []


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/15 8-18 * * 1-5", "0 */15 8-18 * * 1-5"),
        ("30 0 3 * * *", "30 0 3 * * *"),
        ("@daily", "@daily"),
    ],
)
def test_cron_is_taken_as_everywhere_else_and_sent_as_kubeflow_reads_it(given, sent):
    assert read_cron(given) == sent


@pytest.mark.parametrize("text", ["", "3 * *", "0 3 * * * * *", "0 3 * * $", "@fortnightly"])
def test_what_is_no_cron_is_refused(text):
    with pytest.raises(UserError, match="--cron"):
        read_cron(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("6h", 21600), ("1d", 86400), ("2w", 1209600), ("60", 60)]
)
def test_intervals(text, seconds):
    assert read_interval(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "59s", "0h", "-1d", "1.5h", "1y", "h"])
def test_what_is_no_interval_is_refused(text):
    with pytest.raises(UserError, match="at least a minute"):
        read_interval(text)
