"""What the shell offers after a Tab, asked as bash asks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from raregrade.cli.completion import complete_loss, complete_preset

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def offered(run: Command, words: str) -> set[str]:
    """What bash is told after ``words`` and a Tab."""
    count = str(len(words.split(" ")) - 1)
    result = run(_RAREGRADE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=count)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_the_shell_is_offered_commands_losses_and_presets(run: Command) -> None:
    assert offered(run, "raregrade comp") == {"compare", "compare-folds"}
    assert offered(run, "raregrade train --loss c") == {"ce", "cdw_ce"}
    assert offered(run, "raregrade train --preset lmf_r") == {"lmf_resnet50"}
    assert offered(run, "raregrade presets hi") == {"hierarchical"}


@pytest.mark.parametrize("text", [None, "losses: [", "losses: 3", "- a list", "losses:"])
def test_no_losses_are_offered_where_none_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    assert complete_loss("") == []


def test_losses_are_those_of_the_project_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("losses: {ce: {}, cdw_ce: {}}")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert complete_loss("cd") == ["cdw_ce"]
    assert complete_preset("cdw_ce_r") == ["cdw_ce_resnet18"]


def test_completion_offers_without_loading_torch(project: Path) -> None:
    import sys

    code = "import sys, raregrade.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=project, check=False).returncode == 0
