"""What pipelines and images cost beside the work itself, against the bars that are set for them.

    python benchmarks/pipelines.py [--repeats 3] [--check]

* overhead of a step: ``raregrade pipeline run`` over the same steps started one by one as processes, on the phantom
  (one loss, one seed, so that nothing runs beside anything else); the median over the repeats, which alternate;
* compiling all pipelines, from starting Python to the last file;
* building the image anew after one source file was changed, with the packages already built.

Prints each as a part of its bar; with ``--check`` the exit code is 1 where one is above 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("prepare", "train", "evaluate", "compare", "register")
BARS_S = {"overhead of a step in a process": 3.0, "compiling all pipelines": 5.0, "image after a source change": 20.0}
IMAGE = "localhost/raregrade-benchmark"
PARAMS = {
    "seed": 35,
    "phantom": {"patients": 60, "image_size": 32},
    "data": {
        "source": "phantom",
        "path": "data/raw/phantom",
        "task": "ordinal",
        "classes": ["none", "mild", "moderate", "severe"],
        "image_size": 32,
    },
    "train": {"backbone": "resnet10t", "epochs": 1, "precision": "float32", "threads": 1},
    "losses": {"ce": {}},
    "compare": {"losses": ["ce"], "seeds": [1], "baseline": "ce"},
    "gate": [{"metric": "val_qwk", "threshold": -1.0}],
    "tracking": {"uri": "none"},
}
COMPILE = """
import sys
from pathlib import Path
from raregrade.kubeflow.compile import NAMES, compile_pipeline
for name in NAMES:
    compile_pipeline(name, Path(sys.argv[1], f"{name}.yaml"))
"""


def main() -> int:
    """Measure, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of everything (default: 3)")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is broken")
    options = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        one_by_one, pipeline = _steps_and_pipeline(Path(folder), options.repeats)
        measured["overhead of a step in a process"] = (pipeline - one_by_one) / len(STEPS)
    measured["compiling all pipelines"] = statistics.median(_compile() for _ in range(options.repeats))
    image = _rebuild_image(options.repeats)
    if image is not None:
        measured["image after a source change"] = image
    print(f"pipeline run / the same {len(STEPS)} steps one by one: {pipeline / one_by_one:.2f}\n")
    print("| what | seconds | bar | part of the bar |\n|---|---|---|---|")
    for what, seconds in measured.items():
        print(f"| {what} | {seconds:.2f} | {BARS_S[what]:.0f} | {seconds / BARS_S[what]:.2f} |")
    broken = [what for what, seconds in measured.items() if seconds > BARS_S[what]]
    for what in broken:
        print(f"above its bar: {what}", file=sys.stderr)
    return 1 if options.check and broken else 0


def _steps_and_pipeline(folder: Path, repeats: int) -> tuple[float, float]:
    """Median seconds of all steps as processes, and of the pipeline."""
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    _raregrade(folder, "phantom", "--out", "data/raw/phantom")
    one_by_one, pipeline = [], []
    for repeat in range(-1, repeats):  # the first of each fills the caches of the system, and does not count
        steps = sum(_raregrade(folder, *arguments) for arguments in _commands(f"by-hand-{repeat}"))
        whole = _raregrade(folder, "pipeline", "run", "compare_losses", "--root", f"pipeline-{repeat}")
        if repeat >= 0:
            one_by_one.append(steps)
            pipeline.append(whole)
    return statistics.median(one_by_one), statistics.median(pipeline)


def _commands(out: str) -> list[list[str]]:
    """The steps of the pipeline as commands that write below the folder ``out``."""
    data, model, report, comparison = f"{out}/data", f"{out}/models/ce/1", f"{out}/reports/ce/1", f"{out}/comparison"
    return [
        ["prepare", "--out", data],
        ["train", "--data", data, "--loss", "ce", "--out", model, "--checkpoints", f"{out}/checkpoints"],
        ["evaluate", "--model", model, "--data", data, "--out", report],
        ["compare", report, "--out", comparison],
        f"register --comparison {comparison} --models {out}/models --data {data} --out {out}/registered.json".split(),
    ]


def _raregrade(folder: Path, *arguments: str) -> float:
    command = [sys.executable, "-c", "import sys; from raregrade.cli.main import main; sys.exit(main())", *arguments]
    return _seconds(command, folder)


def _compile() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _seconds([sys.executable, "-c", COMPILE, folder], ROOT)


def _rebuild_image(repeats: int) -> float | None:
    """Median seconds to build a copy of this checkout in which one source file was changed; None without an engine."""
    engine = _engine()
    if engine is None:
        print("the image is left out: neither docker nor podman answers here", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for pattern in ("pyproject.toml", "README.md", "LICENSE", ".dockerignore", "requirements*.lock"):
            for path in ROOT.glob(pattern):
                shutil.copy(path, copy)
        for name in ("src", "pipelines", "components", "infra/docker"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        build = [sys.executable, "infra/docker/build.py", "--name", IMAGE, "--tag", "benchmark"]
        _seconds(build, copy)
        times = []
        for _ in range(repeats):
            with (copy / "src/raregrade/errors.py").open("a", encoding="utf-8") as source:
                source.write(f"# {uuid.uuid4()}\n")
            times.append(_seconds(build, copy))
        made = subprocess.run([engine, "images", "--quiet", IMAGE], capture_output=True, text=True, check=True)
        subprocess.run([engine, "rmi", "--force", *set(made.stdout.split())], capture_output=True, check=False)
    return statistics.median(times)


def _engine() -> str | None:
    """The engine that ``make image`` would use; None where there is none."""
    command = [sys.executable, "infra/docker/build.py", "--print"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split()[0] if done.returncode == 0 else None


def _seconds(command: list[str], folder: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    since = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return time.monotonic() - since


if __name__ == "__main__":
    sys.exit(main())
