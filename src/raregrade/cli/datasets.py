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
    out: Annotated[Path, typer.Option("--out", help="The folder to write; replaced where it exists.")],
    options: ParamsOptions,
) -> None:
    """Draw synthetic labelled images with known truth."""
    config = options.read()
    from raregrade.config import section
    from raregrade.steps.phantom import phantom as step

    step(section(config, "phantom"), out)
    print(f"{out}: {config.phantom.patients} patients, flavour {config.phantom.flavour}")


def fetch(
    *,
    repo: Annotated[str, typer.Option("--repo", metavar="REPO", help="A git repository with DVC, URL or folder.")],
    store: Annotated[
        Path, typer.Option("--store", help="The folder to fetch into; what is there is not fetched again.")
    ],
    revision: Annotated[
        str, typer.Option("--revision", help="A commit, tag or branch; by default the repository's default branch.")
    ] = "",
    options: ParamsOptions,
) -> None:
    """Fetch the raw images that data.path names in a DVC repository, at a revision.

    Needs neither git nor a checkout; the DVC remote's credentials come from the environment.
    """
    config = options.read()
    from raregrade.steps.fetch import fetch as step

    with tempfile.TemporaryDirectory(prefix="raregrade-") as scratch:
        found = step(
            config.data.path, Path(scratch), repo=repo, revision=revision, store=store, tracking=tracking_of(config)
        )
    print(f"{found['path']}: {found['files']} files, {found['size'] / 1e6:.1f} MB, revision {found['revision'][:12]}")
    print(f"prepare them with `--set data.path={found['path']}`")


def prepare(
    *,
    out: Annotated[Path, typer.Option("--out", help="The folder of the prepared dataset.")],
    previous: Annotated[
        Path | None,
        typer.Option("--previous", help="An earlier prepared dataset, whose patients keep their split."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Keep the decoded images in this folder instead of in --out.")
    ] = None,
    options: ParamsOptions,
) -> None:
    """Check, split and decode the images that the parameters name."""
    config = options.read()
    from raregrade.config import section
    from raregrade.steps.prepare import prepare as step

    part = section(config, "prepare")
    _print_dataset(out, step(part, out, store=store, previous=previous, tracking=tracking_of(config)))


def verify(*, data: Annotated[Path, typer.Argument(help="A prepared dataset.")]) -> None:
    """Check a prepared dataset.

    Hashes, counts, labels, and that no patient or image is in two splits. What prepare warned of is shown again.
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
