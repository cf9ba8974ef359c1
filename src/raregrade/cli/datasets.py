"""Commands that make and check data: phantom, fetch, prepare, verify."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from raregrade.cli.options import ParamsOptions, tracking_of
from raregrade.errors import DataError


def phantom(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write. An old phantom is replaced.")],
    options: ParamsOptions,
) -> None:
    """Draw synthetic labelled images with known truth.

    Example:
        raregrade phantom --out data/raw/phantom
    """
    config = options.read_settings()
    from raregrade.config import section
    from raregrade.steps.phantom import phantom as step

    step(section(config, "phantom"), out)
    print(f"{out}: {config.phantom.patients} patients, flavour {config.phantom.flavour}")


def fetch(
    *,
    repo: Annotated[str, typer.Option("--repo", metavar="REPO", help="A git repository with DVC: a URL or a folder.")],
    store: Annotated[
        Path,
        typer.Option("--store", metavar="FOLDER", help="Where to put the images; what is there is not fetched again."),
    ],
    revision: Annotated[
        str,
        typer.Option("--revision", metavar="REV", help="A commit, tag or branch. Default: the default branch."),
    ] = "",
    options: ParamsOptions,
) -> None:
    """Fetch raw images from a DVC repository at one revision.

    data.path names them within the repository. Neither git nor a checkout is needed. Credentials of the DVC remote come
    from the environment.

    Example:
        raregrade fetch --repo https://github.com/me/scans.git --revision v1 \\
            --store data/store
    """
    config = options.read_settings()
    from raregrade.steps.fetch import fetch as step

    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
        found = step(
            config.data.path, Path(scratch), repo=repo, revision=revision, store=store, tracking=tracking_of(config)
        )
    print(f"{found['path']}: {found['files']} files, {found['size'] / 1e6:.1f} MB, revision {found['revision'][:12]}")
    print(f"prepare them with `--set data.path={found['path']}`")


def prepare(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write the dataset.")],
    previous: Annotated[
        Path | None,
        typer.Option(
            "--previous", metavar="FOLDER", help="An earlier prepared dataset, whose patients keep their split."
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="FOLDER", help="Keep the decoded images here instead of in --out."),
    ] = None,
    options: ParamsOptions,
) -> None:
    """Check, split and decode the images that params.yaml names.

    Example:
        raregrade prepare --out data/prepared
    """
    config = options.read_settings()
    from raregrade.config import section
    from raregrade.steps.prepare import prepare as step

    part = section(config, "prepare")
    _print_dataset(out, step(part, out, store=store, previous=previous, tracking=tracking_of(config)))


def verify(*, data: Annotated[Path, typer.Argument(metavar="FOLDER", help="A prepared dataset.")]) -> None:
    """Check a prepared dataset: hashes, counts, labels, leaks.

    No patient and no image may be in two splits. What prepare warned of is shown again.

    Example:
        raregrade verify data/prepared
    """
    from raregrade.data.manifest import PreparedDataset
    from raregrade.data.verify import dataset_warnings, verify_dataset

    problems = verify_dataset(data)
    if problems:
        raise DataError("\n".join([f"{data} is not sound:", *(f"  {p}" for p in problems), "Prepare it again."]))
    dataset = PreparedDataset.open(data)
    for warning in dataset_warnings(dataset):
        print(f"warning: {warning}", file=sys.stderr)
    print("sound: ", end="")
    _print_dataset(data, dataset.info)


def _print_dataset(root: Path, info: dict[str, Any]) -> None:
    counts = ", ".join(f"{split} {count}" for split, count in info["counts"].items())
    # A dataset of an earlier version does not say what it was split by.
    groups = {"patients": f" of {info.get('num_groups')} patients", "images": ", each its own group"}
    by = groups.get(str(info.get("unit")), "")
    print(f"{root}: {info['num_images']} images of {info['image_size']} px ({counts}){by}")


COMMANDS = {"phantom": phantom, "fetch": fetch, "prepare": prepare, "verify": verify}
