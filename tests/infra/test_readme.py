"""The commands of infra/README.md, as far as they can be checked without a cluster."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.infra.manifests import KUBERNETES, ROOT, kubectl, kustomizations

README = (ROOT / "infra" / "README.md").read_text()


def commands() -> list[str]:
    """The lines that are indented as code, continued lines put together, without what the README adds at their ends."""
    lines = [line for line in README.splitlines() if re.match(r" {4,}\S", line)]
    text = "\n".join(re.sub(r"\s+# .*$", "", line) for line in lines)
    text = re.sub(r"(\\|\||&&)\n\s*", r"\1 ", text).replace("\\ ", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def kubectl_commands() -> list[list[str]]:
    """The words of each call of kubectl, pipes and substitutions taken apart."""
    calls = re.findall(
        r"kubectl (?:[^|&)\n`]|\$\()+", "\n".join([*commands(), *re.findall(r"`(kubectl [^`]+)`", README)])
    )
    return [shlex.split(re.sub(r'["<>]', " ", call.replace("\n", " "))) for call in calls]


def test_the_readme_holds_the_commands_that_these_tests_look_for() -> None:
    assert len(commands()) > 40
    assert len(kubectl_commands()) > 20


@functools.cache
def options_of(*words: str) -> set[str]:
    """All that looks like an option in what kubectl prints."""
    text = subprocess.run([kubectl(), *words], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<![\w-])--?[\w-]+", text))


@pytest.mark.parametrize("words", kubectl_commands(), ids=" ".join)
def test_kubectl_knows_the_command_and_its_options(words: list[str]) -> None:
    """Help is the one thing that kubectl says without a cluster."""
    plain = [word for word in words[1:] if not word.startswith("-")]
    if words[1] == "-n":
        plain = plain[1:]
    verb = plain[:2] if plain[0] in ("rollout", "create") else plain[:1]
    known = options_of(*verb, "--help") | options_of("options")
    own = words[: words.index("--")] if "--" in words else words
    options = {word.split("=")[0] for word in own if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
    assert options <= known, options - known


def test_an_option_that_kubectl_does_not_know_would_be_found() -> None:
    with pytest.raises(AssertionError, match="recursivly"):
        test_kubectl_knows_the_command_and_its_options(["kubectl", "apply", "--recursivly", "-k", "x"])


def test_every_path_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?<![\w/.])(?:infra|configs)/[\w./-]*\w", README)) - {"infra/.env"}
    assert len(named) > 12
    for name in named:
        assert (ROOT / name).exists(), name
    inside = set(re.findall(r"`((?:overlays|base|kubernetes|docker|components)/[\w./-]*)`", README))
    assert len(inside) > 8
    for name in inside:
        assert (KUBERNETES / name).exists() or (ROOT / "infra" / name).exists(), name


def test_every_folder_that_is_applied_is_a_kustomization() -> None:
    folders = {Path(name) for name in re.findall(r"(?:-k|kustomize) (infra/\S+)", README)}
    assert folders <= {path.parent.relative_to(ROOT) for path in kustomizations()}
    assert {path.name for path in folders} >= {"platform", "runs", "serving", "example-data"}


def test_the_steps_are_those_of_the_dev_environment() -> None:
    settings = yaml.safe_load((ROOT / "configs" / "environments" / "dev.yaml").read_text())
    assert f"kubectl create namespace {settings['namespace']} " in README
    assert f"create-secrets.sh {settings['namespace']} " in README
    assert f"--raw-data {settings['raw_data']}/phantom" in README


def test_scripts_are_valid_shell() -> None:
    scripts = [*(ROOT / "infra").rglob("*.sh"), ROOT / "scripts" / "services-for-tests.sh"]
    assert len(scripts) >= 4
    for script in scripts:
        shell = "bash" if "bash" in script.read_text().splitlines()[0] else "sh"
        subprocess.run([shutil.which(shell) or shell, "-n", script], check=True)
