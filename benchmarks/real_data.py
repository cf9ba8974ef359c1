"""Compare the losses on real images: prepare, train, evaluate and compare, by raregrade's own commands.

    python benchmarks/real_data.py retinamnist --data FOLDER
    python benchmarks/real_data.py brixia      --data FOLDER
    python benchmarks/real_data.py ham10000    --data FOLDER

FOLDER (default: the environment variable RAREGRADE_REAL_DATA) holds ``medmnist/retinamnist.npz``,
``brixia_severity_cxr/`` and ``ham10000_200x150/``. Results go to ``.raregrade/benchmarks/<name>``; a run that is
already there is not repeated, an interrupted one is resumed. Prints every command with its seconds, then the
comparison table.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RAW = {
    "retinamnist": "medmnist/retinamnist.npz",
    "brixia": "brixia_severity_cxr",
    "ham10000": "ham10000_200x150",
}
# Of the sum over six lung zones, each 0 to 3.
_GRADES = (("none", 0), ("mild", 6), ("moderate", 12), ("severe", 18))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RAW)
    parser.add_argument("--data", type=Path, default=os.environ.get("RAREGRADE_REAL_DATA"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to every command")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time; each has train.threads threads")
    options = parser.parse_args()
    if options.data is None or not (options.data / RAW[options.name]).exists():
        parser.error(f"no {RAW[options.name]} in {options.data}; give the folder with --data or RAREGRADE_REAL_DATA")
    sys.path.insert(0, str(ROOT / "src"))
    from raregrade.config import load_params  # noqa: PLC0415

    config = ROOT / "configs" / "benchmarks" / f"{options.name}.yaml"
    params = load_params(config, options.set)
    out = options.out or Path(".raregrade/benchmarks") / options.name
    raw = options.data / RAW[options.name]
    if options.name == "brixia":
        raw = _graded(raw, out / "raw")
    settings = ["--params", str(config.relative_to(ROOT)), "--set", f"data.path={raw}"]
    settings += [part for override in options.set for part in ("--set", override)]

    _run(["raregrade", "prepare", "--out", str(out / "prepared"), *settings], made=out / "prepared/dataset.json")

    def train_and_evaluate(loss: str, seed: int) -> None:
        model, report = out / "models" / loss / str(seed), out / "reports" / loss / str(seed)
        train = ["raregrade", "train", "--data", str(out / "prepared"), "--loss", loss, "--seed", str(seed)]
        _run([*train, "--out", str(model), *settings], made=model / "model.json")
        evaluate = ["raregrade", "evaluate", "--model", str(model), "--data", str(out / "prepared")]
        _run([*evaluate, "--out", str(report), *settings], made=report / "metrics.json")

    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [(loss, seed) for seed in params.compare.seeds for loss in params.compare.losses]
        list(pool.map(lambda run: train_and_evaluate(*run), runs))
    _run(["raregrade", "compare", str(out / "reports"), "--out", str(out / "comparison"), *settings], made=None)
    return 0


def _graded(raw: Path, folder: Path) -> Path:
    """The senior reader's global Brixia score in four grades. Images without a patient are patients of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to((raw / "images").resolve())
    with (raw / "labels.csv").open(encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("filename", "grade", "patient"))
        for row in rows:
            grade = next(name for name, highest in _GRADES if int(row["S-Global"]) <= highest)
            writer.writerow((row["filename"], grade, row["patientid"] or row["filename"]))
    return folder


def _run(command: list[str], made: Path | None) -> None:
    if made is not None and made.exists():
        print(f"# kept: {made}", flush=True)
        return
    print("$", shlex.join(command), flush=True)
    start = time.monotonic()
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    print(f"# {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
