"""``--runner docker``: how containers fail, are stopped and held, and what is said where one cannot run."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from kfp import dsl

from raregrade.errors import RaregradeError, UserError
from raregrade.kubeflow.local_docker import run_in_containers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dsl.component(base_image="localhost/throwaway:1", install_kfp_package=False)
def work(run: dict, model: dsl.Output[dsl.Model], raw_data: str = "") -> None:
    import json
    import os
    import sys
    from pathlib import Path

    print(f"working on {run['loss']}", file=sys.stderr)
    if run["loss"] == "broken":
        raise ValueError(f"row 3 of {run['loss']}\nis wrong")
    if run["loss"] == "wordy":
        print("\n".join(f"word {n}" for n in range(5000)))
    if run["loss"] == "killed":
        os.kill(os.getpid(), 9)
    seen = {"user": os.getuid(), "group": os.environ["RAREGRADE_GROUP"], "threads": os.environ.get("OMP_NUM_THREADS")}
    if raw_data:
        seen["raw"] = Path(raw_data, "image").read_text()
        try:
            Path(raw_data, "more").write_text("x")
        except OSError as err:
            seen["refused"] = type(err).__name__ if err.errno == 30 else str(err)
    Path(model.path).write_text(json.dumps(seen))


@dsl.component(base_image="localhost/throwaway:1", install_kfp_package=False)
def gather(models: dsl.Input[list[dsl.Model]], comparison: dsl.Output[dsl.Artifact]) -> None:
    from pathlib import Path

    Path(comparison.path).write_text("\n".join(Path(m.path).read_text() for m in models))


class Outputs(NamedTuple):
    comparison: dsl.Artifact


@dsl.pipeline(name="throwaway")
def throwaway(runs: list[dict], raw_data: str = "") -> Outputs:
    with dsl.ParallelFor(items=runs, name="loop") as run:
        worked = work(run=run, raw_data=raw_data)
    return Outputs(comparison=gather(models=dsl.Collected(worked.outputs["model"])).outputs["comparison"])


@pytest.fixture
def go(tmp_path, engine, name):
    lines = []

    def go(*losses, image=name, **more):
        return run_in_containers(
            throwaway,
            {"runs": [{"loss": loss, "seed": 1} for loss in losses], **more},
            image=image,
            root=tmp_path / "root",
            group=f"test-{os.getpid()}",
            checkpoints=tmp_path / "checkpoints",
            report=lines.append,
        )

    go.lines = lines
    yield go
    assert engine.containers.list(all=True, filters={"label": f"raregrade.run=test-{os.getpid()}"}) == []


def test_tasks_write_as_their_user_and_cannot_touch_the_raw_data(go, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "image").write_text("pixels")
    result = go("a", "b", raw_data=str(tmp_path / "raw"))
    rows = [json.loads(line) for line in result.outputs["comparison"].read_text().splitlines()]
    assert [(row["threads"], row["raw"], row["refused"]) for row in rows] == [("3", "pixels", "OSError")] * 2
    assert result.outputs["comparison"].stat().st_uid == os.getuid()
    assert "  work a seed 1 | working on a" in go.lines
    logs = {log.parent.name: log.read_text() for log in result.folder.rglob("log.txt")}
    assert "working on" in logs["work"]


def test_a_failing_container_fails_the_run_in_its_own_words(go):
    for _ in range(2):
        with pytest.raises(RaregradeError) as caught:
            go("a", "broken")
        message = str(caught.value)
        assert message.startswith("task work broken seed 1 failed: ValueError: row 3 of broken\nis wrong\nIts log: ")
        assert "Traceback" in Path(message.rsplit("Its log: ", 1)[1]).read_text()


def test_all_that_a_task_writes_reaches_its_log_however_soon_it_ends(go):
    for _ in range(2):
        log = next(go("wordy").folder.rglob("work/log.txt")).read_text()
        assert [line for line in log.splitlines() if line.startswith("word ")] == [f"word {n}" for n in range(5000)]


def test_a_task_that_the_system_kills_is_said_to_be_killed(go):
    with pytest.raises(RaregradeError, match=r"task work killed seed 1 failed: killed, as the system does when memory"):
        go("killed")


def test_an_image_that_is_not_there_is_to_be_made(go):
    with pytest.raises(UserError, match=r"has no image localhost/raregrade:0\.0\.0\. Run `make image`"):
        go("a", image="localhost/raregrade:0.0.0")


def test_an_image_of_another_version_or_of_something_else_is_refused(go, engine, image, tmp_path):
    old = derived(engine, image, {"org.opencontainers.image.version": "0.0.1"}, tmp_path)
    try:
        with pytest.raises(UserError, match=r"holds raregrade 0\.0\.1, and this is "):
            go("a", image=old)
    finally:
        engine.images.remove(old, force=True)


def test_an_image_of_other_sources_runs_with_a_note(go, engine, image, tmp_path):
    other = derived(engine, image, {"raregrade.source": "0" * 64}, tmp_path)
    try:
        go("a", image=other)
    finally:
        engine.images.remove(other, force=True)
    assert go.lines[0].startswith(f"note: {other} was built from other sources")


def derived(engine, image, labels, folder):
    """The same image under another name with other labels."""
    container = engine.containers.create(image.id, ["true"])
    try:
        changes = [f"LABEL {key}={value}" for key, value in labels.items()]
        container.commit("localhost/raregrade-derived", tag="test", changes=changes)
    finally:
        container.remove(force=True)
    return "localhost/raregrade-derived:test"


SLEEPER = """
    import os, sys
    from pathlib import Path
    from kfp import dsl
    from raregrade.kubeflow.local_docker import run_in_containers
    from raregrade.errors import InterruptedRunError

    @dsl.component(base_image="localhost/throwaway:1", install_kfp_package=False)
    def sleep(run: dict, model: dsl.Output[dsl.Model]) -> None:
        import signal, sys, time
        from pathlib import Path
        def save(number, frame):
            Path(model.path).write_text("saved")
            sys.exit(75)
        signal.signal(signal.SIGTERM, save)
        print("asleep", flush=True)
        time.sleep(120)

    @dsl.pipeline(name="sleeper")
    def sleeper(runs: list[dict]):
        with dsl.ParallelFor(items=runs, name="loop") as run:
            sleep(run=run)

    def report(line):
        sys.stderr.write(line + "\\n")
        sys.stderr.flush()

    try:
        run_in_containers(sleeper, {"runs": [{"loss": str(i), "seed": 1} for i in range(5)]}, image=sys.argv[1],
                          root=Path("root"), group="sleeper", checkpoints=Path("c"), report=report)
    except InterruptedRunError:
        sys.exit(75)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_lets_the_tasks_save_and_leaves_no_container(engine, name, work, number):
    (work / "sleeper.py").write_text(textwrap.dedent(SLEEPER))
    environment = {**os.environ, "PYTHONPATH": str(work)}
    with subprocess.Popen(
        [sys.executable, "sleeper.py", name], cwd=work, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        asleep = 0
        for line in process.stderr:
            asleep += "| asleep" in line
            if asleep == 2:
                break
        since = time.monotonic()
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 75
    assert "started" not in rest
    assert time.monotonic() - since < 30
    assert [path.read_text() for path in (work / "root").rglob("model")] == ["saved", "saved"]
    assert engine.containers.list(all=True, filters={"label": "raregrade.run=sleeper"}) == []


def test_without_an_engine_the_command_says_how_to_start_one(work, command):
    told = command(
        work,
        *("raregrade", "pipeline", "run", "compare_losses", "--runner", "docker"),
        code=2,
        DOCKER_HOST="unix:///nowhere/docker.sock",
    )
    assert "nobody answers at DOCKER_HOST=unix:///nowhere/docker.sock" in told
    assert "podman system service" in told
    assert "Traceback" not in told
