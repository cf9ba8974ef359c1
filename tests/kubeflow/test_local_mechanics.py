"""How ``local_run`` starts, follows, fails and stops tasks, on pipelines of throwaway components."""

import builtins
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from kfp import dsl
from kfp.local import config as local_config
from kfp.local import subprocess_task_handler

from raregrade.errors import RaregradeError
from raregrade.kubeflow.local_subprocess import run_in_subprocesses

IMAGE = "localhost/throwaway:1"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def start(data: dsl.Output[dsl.Dataset]) -> None:
    from pathlib import Path

    Path(data.path).write_text("data")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def work(run: dict, data: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]) -> None:
    import json
    import os
    import sys
    from pathlib import Path

    print(f"working on {run['loss']}", file=sys.stderr)
    if run.get("broken"):
        raise ValueError(f"row 3 of {run['loss']}\nis wrong")
    seen = {"group": os.environ["RAREGRADE_GROUP"], "data": Path(data.path).read_text(), **run}
    Path(model.path).write_text(json.dumps(seen))
    model.metadata.update({"loss": run["loss"], "seed": run["seed"]})


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish(models: dsl.Input[list[dsl.Model]], comparison: dsl.Output[dsl.Artifact]) -> None:
    from pathlib import Path

    Path(comparison.path).write_text("\n".join(Path(m.path).read_text() for m in models))


class Outputs(NamedTuple):
    comparison: dsl.Artifact
    registration: dsl.Artifact


@dsl.pipeline(name="throwaway")
def throwaway(runs: list[dict]) -> Outputs:
    started = start()
    with dsl.ParallelFor(items=runs, name="loop") as run:
        worked = work(run=run, data=started.outputs["data"])
    finished = finish(models=dsl.Collected(worked.outputs["model"]))
    return Outputs(comparison=finished.outputs["comparison"], registration=finished.outputs["comparison"])


@pytest.fixture
def go(tmp_path):
    lines = []

    def go(runs):
        return run_in_subprocesses(
            throwaway,
            {"runs": runs},
            root=tmp_path / "root",
            group="the-run",
            checkpoints=tmp_path / "checkpoints",
            report=lines.append,
        )

    go.lines = lines
    return go


def items(*losses, **more):
    return [{"loss": loss, "seed": 1, **more} for loss in losses]


def test_every_item_of_the_loop_meets_its_own_outputs_in_order_and_the_id_of_the_run(go):
    result = go(items("a", "b", "c"))
    rows = [json.loads(line) for line in result.outputs["comparison"].read_text().splitlines()]
    assert [row["loss"] for row in rows] == ["a", "b", "c"]
    assert {(row["group"], row["data"]) for row in rows} == {("the-run", "data")}
    assert result.folder.name.startswith("throwaway-")
    assert result.folder.parent.name == "root"


def test_the_terminal_shows_what_tasks_say_and_not_what_kfp_says(go, capfd):
    go(items("a"))
    shown = "\n".join(go.lines)
    assert "work a seed 1: started" in go.lines
    assert "  work a seed 1 | working on a" in go.lines
    assert "KFP Executor" not in shown
    assert "executor_input" not in shown
    assert capfd.readouterr().out == ""


def test_each_task_has_a_log_of_its_own_with_everything(go):
    result = go(items("a", "b"))
    logs = {log.parent.name: log.read_text() for log in result.folder.rglob("log.txt")}
    assert set(logs) == {"start", "work", "finish"}
    for number, loss in enumerate(("a", "b")):
        text = (result.folder / f"for-loop-1-iteration-{number}" / "work" / "log.txt").read_text()
        assert f"working on {loss}" in text
        assert "KFP Executor" in text


def test_a_task_that_fails_is_named_with_its_message_and_its_log(go, tmp_path):
    with pytest.raises(RaregradeError) as caught:
        go([*items("a"), *items("b", broken=True)])
    message = str(caught.value)
    assert message.startswith("task work b seed 1 failed: ValueError: row 3 of b\nis wrong\nIts log: ")
    assert caught.value.exit_code == 1
    assert "Traceback" in Path(message.rsplit("Its log: ", 1)[1]).read_text()
    assert not list(tmp_path.rglob("finish"))


def test_after_a_failure_nothing_more_is_started(go):
    with pytest.raises(RaregradeError):
        go([*items("bad", broken=True), *items(*"abcdefghijkl")])
    started = [line for line in go.lines if line.startswith("work") and line.endswith("started")]
    # The broken one and the one beside it; on a busy machine that one may end first and make room for another.
    assert len(started) <= 6


def test_a_run_leaves_nothing_behind_in_the_process_that_started_it(go):
    printer, handlers, level = builtins.print, logging.getLogger().handlers[:], logging.getLogger().level
    launcher, interrupt = subprocess_task_handler.run_local_subprocess, signal.getsignal(signal.SIGINT)
    go(items("a", "b", "c"))
    with pytest.raises(RaregradeError):
        go(items("a", "b", broken=True))
    assert builtins.print is printer
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert subprocess_task_handler.run_local_subprocess is launcher
    assert signal.getsignal(signal.SIGINT) is interrupt
    assert local_config.LocalExecutionConfig.instance is None


SLEEPER = """
    import os, sys
    from pathlib import Path
    from kfp import dsl
    from raregrade.kubeflow.local_subprocess import run_in_subprocesses

    @dsl.component(base_image="localhost/throwaway:1", install_kfp_package=False)
    def sleep(run: dict, model: dsl.Output[dsl.Model]) -> None:
        import os, time
        print("process", os.getpid(), flush=True)
        time.sleep(120)

    @dsl.pipeline(name="sleeper")
    def sleeper(runs: list[dict]):
        with dsl.ParallelFor(items=runs, name="loop") as run:
            sleep(run=run)

    def report(line):
        sys.stderr.write(line + "\\n")
        sys.stderr.flush()

    from raregrade.errors import InterruptedRunError
    try:
        run_in_subprocesses(sleeper, {"runs": [{"loss": str(i), "seed": 1} for i in range(5)]},
                            root=Path("root"), group="g", checkpoints=Path("c"), report=report)
    except InterruptedRunError:
        sys.exit(75)
"""


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_ends_the_running_tasks_and_starts_no_other(tmp_path, workplace, number):
    (tmp_path / "sleeper.py").write_text(textwrap.dedent(SLEEPER))
    environment = {**os.environ, "PYTHONPATH": str(workplace)}
    with subprocess.Popen(
        [sys.executable, "sleeper.py"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        pids = []
        for line in process.stderr:
            if "| process" in line:
                pids.append(int(line.rsplit(maxsplit=1)[1]))
            if len(pids) == 2:
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=30) == 75
    assert "started" not in rest
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
