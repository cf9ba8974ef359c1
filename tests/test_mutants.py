"""The list of mutations fits the package; the script tells what is killed, what survives and what is stale.

The mutations themselves run in `make mutants`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "mutants.py"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


mutants = _script()
ENTRIES = mutants.read_table(ROOT / mutants.TABLE)

ENTRY = """[[mutant]]
name = "{name}"
file = "sums.py"
old = "{old}"
new = "{new}"
tests = "{tests}"
"""


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_mutation_still_fits_its_file_and_its_tests_exist(entry) -> None:
    assert entry.problem(ROOT) == ""


def test_the_list_is_long_and_about_every_part() -> None:
    assert len(ENTRIES) >= 60
    parts = {entry.file.partition("/")[0] for entry in ENTRIES}
    assert parts >= {"losses", "config", "training", "data", "evaluation", "models", "registry", "tuning", "steps"}


def test_no_two_mutations_make_the_same_mistake() -> None:
    assert len({(entry.file, entry.old, entry.new) for entry in ENTRIES}) == len(ENTRIES)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package of one function, and a test that sees one of its two lines."""
    for folder in ("src/raregrade", "tests", "scripts"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "src/raregrade/__init__.py").touch()
    (tmp_path / "src/raregrade/sums.py").write_text("def total(a, b):\n    unseen = 1\n    return a + b\n")
    (tmp_path / "tests/test_sums.py").write_text(
        "from raregrade.sums import total\n\n\ndef test_it_adds():\n    assert total(1, 2) == 3\n"
    )
    (tmp_path / "tests/test_wrong.py").write_text("def test_it_fails():\n    assert False\n")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['slow']\n")
    return tmp_path


def _run(checkout: Path, *entries: str, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    (checkout / mutants.TABLE).write_text("\n".join(entries))
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import mutants; mutants.PRELOADED = (); "
    code += f"sys.exit(mutants.main({['--root', str(checkout), *arguments]!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def _entry(name: str, old: str = "a + b", new: str = "a - b", tests: str = "tests/test_sums.py") -> str:
    return ENTRY.format(name=name, old=old, new=new, tests=tests)


def test_a_mistake_that_a_test_sees_is_killed_and_the_test_is_named(checkout: Path) -> None:
    before = (checkout / "src/raregrade/sums.py").read_text()
    done = _run(checkout, _entry("minus"), _entry("times", new="a * b"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("test_sums.py::test_it_adds") == 2
    assert "2 mutations: 2 killed" in done.stdout
    assert (checkout / "src/raregrade/sums.py").read_text() == before


def test_a_mutant_that_survives_or_no_longer_fits_fails_by_name(checkout: Path) -> None:
    done = _run(
        checkout,
        _entry("unnoticed", old="unseen = 1", new="unseen = 2"),
        _entry("gone", old="a / b"),
        _entry("always-fails", tests="tests/test_wrong.py"),
        _entry("no-python", new="a +"),
        _entry("killed"),
        arguments=("--jobs", "2"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "5 mutations: 1 killed, 1 SURVIVED, 1 STALE, 1 BASELINE FAILS, 1 UNCLEAR" in done.stdout
    lines = done.stdout.splitlines()
    for name, state in (
        ("unnoticed", "SURVIVED"),
        ("gone", "STALE"),
        ("always-fails", "BASELINE FAILS"),
        ("no-python", "UNCLEAR"),
        ("killed", "killed"),
    ):
        assert any(line.startswith(state) and f" {name} " in line for line in lines), (name, done.stdout)


def test_only_selects_by_pattern_and_a_pattern_without_entries_is_an_error(checkout: Path) -> None:
    entries = (_entry("sum-minus"), _entry("other", old="unseen = 1", new="unseen = 2"))
    done = _run(checkout, *entries, arguments=("--only", "sum-*", "--list"))
    assert (done.returncode, done.stdout.split()[0], len(done.stdout.splitlines())) == (0, "sum-minus", 1)
    missing = _run(checkout, *entries, arguments=("--only", "nothing"))
    assert missing.returncode == 2
    assert "no entry of scripts/mutants.toml matches nothing" in missing.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY.format(name="a", old="x", new="y", tests="tests/t.py") * 2, "two entries are called a"),
        ('[[mutant]]\nname = "a"\nfiles = "b"\n', "an entry has name, files; expected file, name, new, old, tests"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "mutants.toml"
    table.write_text(text)
    with pytest.raises(mutants.TableError, match=message):
        mutants.read_table(table)
