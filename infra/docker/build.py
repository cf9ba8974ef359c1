"""Build the image with podman or Docker, whichever answers: tags, labels and what the network here needs.

Run by ``make image``. The standard library alone, so that it works before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from raregrade.kubeflow.source_digest import source_digest  # noqa: E402 - found through the line above

LOCAL_NAME = "localhost/raregrade"
_ENGINE_NAME = "{{range .Server.Components}}{{.Name}};{{end}}"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_INDEXES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")


class BuildError(Exception):
    """What is missing for a build, and what to do."""


@dataclass(frozen=True)
class Checkout:
    """What a checkout is called: the package's version, the git commit, and its date in ISO 8601."""

    version: str
    revision: str
    created: str


def describe(root: Path) -> Checkout:
    """Version and commit of the checkout ``root``; ``-dirty`` follows the commit where a tracked file was changed."""
    found = re.search(r'^__version__ = "([^"]+)"', (root / "src/raregrade/__init__.py").read_text("utf-8"), re.M)
    if found is None:
        raise BuildError(f"{root}/src/raregrade/__init__.py has no __version__")
    commit = _git(root, "rev-parse", "HEAD")
    changed = commit and _git(root, "status", "--porcelain", "--untracked-files=no")
    return Checkout(
        version=found[1],
        revision=f"{commit}-dirty" if changed else commit or "unknown",
        created=_git(root, "log", "-1", "--format=%cI"),
    )


def find_engine(wanted: str = "") -> str:
    """``wanted``, else docker where its daemon answers, else podman.

    ``raregrade pipeline run --runner docker`` asks the daemon first as well: it finds the image where it was built.
    A docker command that leads to podman's service cannot build this file, podman itself can.

    Raises:
        BuildError: neither is there.
    """
    if wanted:
        if shutil.which(wanted) is None:
            raise BuildError(f"there is no command {wanted!r}. Unset ENGINE, or install it.")
        return wanted
    if shutil.which("docker"):
        asked = subprocess.run(
            ["docker", "version", "--format", _ENGINE_NAME], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0 and "Podman" not in asked.stdout:
            return "docker"
    if shutil.which("podman"):
        return "podman"
    raise BuildError("no container engine answers. Start Docker, or install podman (apt-get install podman).")


def build_command(
    engine: str, checkout: Checkout, tags: Sequence[str], options: argparse.Namespace, environment: Mapping[str, str]
) -> list[str]:
    """The command line that builds the image; run it in the root of the checkout."""
    arguments = {
        "VERSION": checkout.version,
        "REVISION": checkout.revision,
        "CREATED": checkout.created,
        "SOURCE_DIGEST": source_digest(ROOT / "src" / "raregrade"),
        "BASE_IMAGE": options.base_image,
        "TORCH_INDEX": options.torch_index,
    }
    command = [engine, "build", "--file", "infra/docker/Dockerfile"]
    command += [part for tag in tags for part in ("--tag", tag)]
    command += [part for name, value in arguments.items() if value for part in ("--build-arg", f"{name}={value}")]
    # By name alone the engine takes the value from the environment: addresses may hold passwords.
    passed_on = [name for name in (*_PROXIES, *_INDEXES) if environment.get(name)]
    command += [part for name in passed_on for part in ("--build-arg", name)]
    certificates = environment.get("SSL_CERT_FILE", "")
    if certificates and Path(certificates).is_file():
        command += ["--secret", f"id=certificates,src={certificates}"]
    return [*command, *shlex.split(options.flags), "."]


def tags_of(checkout: Checkout, name: str, tag: str) -> list[str]:
    """The version, by which committed pipelines know the image, and the tag for a cluster: ``tag``, else the commit."""
    return [f"{name}:{checkout.version}", f"{name}:{tag or checkout.revision}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Build the image; returns the exit code of the engine, or 2 where there is none."""
    parser = argparse.ArgumentParser(description="Build the image of raregrade.")
    parser.add_argument("--engine", default="", help="podman or docker; by default the one that answers")
    parser.add_argument("--name", default=LOCAL_NAME, help="repository, such as registry.example/raregrade")
    parser.add_argument("--tag", default="", help="the tag for a cluster; by default the git commit")
    parser.add_argument("--base-image", default="", help="another Python image than the Dockerfile's")
    parser.add_argument("--torch-index", default="", help="index to take torch from, for other hardware")
    parser.add_argument("--flags", default="", help="more flags for the engine, as one string")
    parser.add_argument("--print", action="store_true", help="print the command and build nothing")
    options = parser.parse_args(argv)
    try:
        checkout = describe(ROOT)
        tags = tags_of(checkout, options.name or LOCAL_NAME, options.tag)
        engine = find_engine(options.engine)
    except BuildError as err:
        print(f"build: {err}", file=sys.stderr)
        return 2
    command = build_command(engine, checkout, tags, options, os.environ)
    if options.print:
        print(shlex.join(command))
        return 0
    since = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code == 0:
        print("\n".join(f"built {tag}" for tag in tags), f"in {time.monotonic() - since:.1f} s with {engine}", sep="\n")
    return code


def _git(root: Path, *arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
