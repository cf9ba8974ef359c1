"""An exit handler on this machine: its task runs after a failure too, and the failure stays what the run ends with."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from raregrade.errors import RaregradeError
from raregrade.kubeflow.local_subprocess import run_in_subprocesses

IMAGE = "localhost/throwaway:1"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def work(broken: bool, comparison: dsl.Output[dsl.Artifact]) -> None:
    from pathlib import Path

    if broken:
        raise ValueError("row 3 is wrong")
    Path(comparison.path).write_text("done")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def more(comparison: dsl.Input[dsl.Artifact], run: dict, model: dsl.Output[dsl.Model]) -> None:
    from pathlib import Path

    Path(model.path).write_text(run["loss"])


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(path: str, broken: bool, status: dsl.PipelineTaskFinalStatus) -> None:
    import json
    from pathlib import Path

    if broken:
        raise ValueError("nobody to tell")
    Path(path).write_text(json.dumps({"state": status.state}))


@dsl.pipeline(name="handled")
def handled(path: str, broken_work: bool, broken_report: bool):
    with dsl.ExitHandler(report(path=path, broken=broken_report), name="pipeline"):
        worked = work(broken=broken_work)
        with dsl.ParallelFor(items=[{"loss": "a"}, {"loss": "b"}]) as run:
            more(comparison=worked.outputs["comparison"], run=run)


@pytest.fixture
def go(tmp_path):
    lines = []

    def go(*, work=False, report=False):
        return run_in_subprocesses(
            handled,
            {"path": str(tmp_path / "told.json"), "broken_work": work, "broken_report": report},
            root=tmp_path / "root",
            group="the-run",
            checkpoints=tmp_path / "checkpoints",
            report=lines.append,
        )

    go.lines, go.told = lines, tmp_path / "told.json"
    return go


def test_it_is_told_of_a_success_and_what_tasks_made_is_found_by_its_name(go):
    result = go()
    assert json.loads(go.told.read_text()) == {"state": "SUCCEEDED"}
    assert {name: path.read_text() for name, path in result.outputs.items()} == {"comparison": "done"}
    assert result.folder == result.outputs["comparison"].parents[1]


def test_it_is_told_of_a_failure_and_the_run_ends_with_that_failure(go, tmp_path):
    with pytest.raises(RaregradeError) as caught:
        go(work=True)
    assert json.loads(go.told.read_text()) == {"state": "FAILED"}
    assert str(caught.value).startswith("task work failed: ValueError: row 3 is wrong\nIts log: ")
    assert any(line.startswith("report: done") for line in go.lines)
    assert not list(tmp_path.rglob("more"))


def test_its_own_failure_fails_the_run(go):
    with pytest.raises(RaregradeError, match="task report failed: ValueError: nobody to tell") as caught:
        go(report=True)
    assert Path(str(caught.value).rsplit("Its log: ", 1)[1]).is_file()


def test_its_own_failure_does_not_hide_that_of_the_work(go):
    with pytest.raises(RaregradeError, match="task work failed: ValueError: row 3 is wrong"):
        go(work=True, report=True)
