"""Break the package in one place at a time, and see that its tests notice: ``make mutants``.

``mutants.toml`` beside this file is the list. Each entry is one small mistake that somebody could make: a file, text
that stands in it exactly once, what to put there instead, and the tests that have to fail. The tests of an entry run
first on the package as it is, once for all entries that name the same ones, and have to pass.

The working tree is never changed: a copy of ``src`` is, in a temporary folder that comes first on the path. What tests
import beside the package is imported once, and each run of pytest is a fork of that process: most of a short run is
spent on imports. Runs on POSIX, in the environment that ``make install`` makes.

    python scripts/mutants.py [--only PATTERN ...] [--jobs N] [--list]
"""

from __future__ import annotations

import argparse
import compileall
import fnmatch
import gc
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = "scripts/mutants.toml"
PACKAGE = "src/raregrade/"
KILLED, SURVIVED, STALE, BASELINE, UNCLEAR = "killed", "SURVIVED", "STALE", "BASELINE FAILS", "UNCLEAR"
# Slow to import, and the same for every mutation. None of them may leave a thread behind, which a fork would lose.
PRELOADED = (
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.metrics",
    "torch",
    "torchvision",
    "timm",
    "pydantic",
    "pytest",
    "pytest_timeout",
    "hypothesis",
    "optuna",
    "matplotlib.figure",
    "jinja2",
    "typer",
)
_TIMEOUT_SECONDS = 900
# Plugins by name: to look for them takes longer than many a test. In the order of the files, so without `randomly`.
_PLUGINS = ("-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider")
_PYTEST = ("-q", "-x", "-m", "not slow", *_PLUGINS, "--hypothesis-seed=0")
_FAILED = 1  # pytest's exit code where tests ran and one failed
_WRONG_PACKAGE = 90
_PAUSE_SECONDS = 0.05


class TableError(Exception):
    """The list of mutations cannot be used; says why."""


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    Attributes:
        name: what ``--only`` selects by.
        file: below ``src/raregrade``.
        old: text that stands in ``file`` exactly once.
        new: what takes its place.
        tests: what to give pytest: files, and ``-k`` where a file takes long.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def path(self) -> str:
        """Of ``file`` from the root of the repository."""
        return PACKAGE + self.file

    @property
    def test_files(self) -> tuple[str, ...]:
        """The files among ``tests``, from the root of the repository."""
        return tuple(word.partition("::")[0] for word in shlex.split(self.tests) if word.startswith("tests/"))

    def problem(self, root: Path) -> str:
        """Why this entry no longer fits the checkout ``root``; empty where it does."""
        path = root / self.path
        if not path.is_file():
            return f"{self.path} is missing"
        count = path.read_text(encoding="utf-8").count(self.old)
        if count != 1:
            return f"`old` stands in {self.path} {count} times, not once"
        if self.old == self.new:
            return "`new` is `old`"
        if not self.test_files:
            return "`tests` names no file below tests/"
        missing = [name for name in self.test_files if not (root / name).exists()]
        return f"{missing[0]} is missing" if missing else ""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation.

    Attributes:
        mutation: which.
        state: one of the words above.
        seconds: of its tests.
        detail: the test that failed, or why there is no answer.
    """

    mutation: Mutation
    state: str
    seconds: float
    detail: str

    def __str__(self) -> str:
        return f"{self.state:<14} {self.seconds:6.1f} s  {self.mutation.name:<38} {self.detail}"


@dataclass(frozen=True)
class Run:
    """One run of pytest: its exit code (None where it took too long), its seconds, and what it printed."""

    code: int | None
    seconds: float
    output: str

    @property
    def detail(self) -> str:
        """The first test that failed, without its folder; else the last line."""
        found = re.search(r"^(?:FAILED|ERROR) \S*?([\w.]+\.py(?:::\S+)?)", self.output, flags=re.MULTILINE)
        lines = self.output.strip().splitlines() or ["no output"]
        return found[1] if found else lines[-1]


@dataclass
class Group:
    """Mutations that name the same tests, in work on one copy of the package.

    Attributes:
        tests: what to give pytest.
        waiting: mutations whose turn is to come.
        current: the one that is applied; None while the package is as it was.
        outcomes: of those that are done.
    """

    tests: str
    waiting: list[Mutation]
    current: Mutation | None = None
    outcomes: list[Outcome] = field(default_factory=list)


class Tree:
    """A copy of ``src`` that may be broken and mended, and on which one run of pytest at a time is made.

    Args:
        root: the checkout.
        folder: where the copy goes; made here.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.source = folder / "src"
        shutil.copytree(root / "src", self.source, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(self.source, quiet=2)
        self._mended: dict[Path, str] = {}
        self._pid = 0
        self._started = 0.0

    @property
    def environment(self) -> dict[str, str]:
        """What a run of pytest, and every process that tests start, finds set."""
        return {
            "PYTHONPATH": str(self.source),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            # A file that is broken and mended within a second, at equal length, would pass for its old bytecode:
            # that of a file goes when it is broken, and none comes back.
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.folder / "hypothesis"),
        }

    def check(self) -> None:
        """Raise TableError unless a process that tests start imports the package from this copy."""
        code = "import raregrade; print(raregrade.__file__)"
        environment = {**os.environ, **self.environment}
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=self.root, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()
        if Path(found).resolve() != (self.folder / PACKAGE / "__init__.py").resolve():
            raise TableError(f"tests would read {found} instead of the copy in {self.folder}; run `make install` again")

    def break_by(self, mutation: Mutation) -> None:
        """Apply ``mutation``."""
        path = self.folder / mutation.path
        self._mended[path] = path.read_text(encoding="utf-8")
        path.write_text(self._mended[path].replace(mutation.old, mutation.new), encoding="utf-8")
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)

    def mend(self) -> None:
        """Undo ``break_by``."""
        for path, text in self._mended.items():
            path.write_text(text, encoding="utf-8")
        self._mended.clear()

    def start(self, tests: str) -> None:
        """Begin to run ``tests`` on the copy as it stands."""
        self._started = time.monotonic()
        sys.stdout.flush()
        self._pid = os.fork()
        if not self._pid:
            code = _WRONG_PACKAGE
            try:
                code = self._run(tests)
            finally:
                os._exit(code)

    def finished(self) -> Run | None:
        """The run that was started, once it is over; None until then."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        seconds = time.monotonic() - self._started
        if not pid and seconds > _TIMEOUT_SECONDS:
            self.stop()
            return Run(None, seconds, f"took more than {_TIMEOUT_SECONDS} s")
        if not pid:
            return None
        self._pid = 0
        code = os.waitstatus_to_exitcode(status)
        output = (self.folder / "output").read_text(encoding="utf-8", errors="replace")
        if code == _WRONG_PACKAGE:
            raise TableError(f"a run of pytest could not be started: {output.strip()[-2000:]}")
        return Run(code, seconds, output)

    def stop(self) -> None:
        """End a run that is under way, with what it started."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _run(self, tests: str) -> int:
        """pytest's exit code; runs in the fork."""
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(self.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, stream in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(number, stream)
        os.chdir(self.root)
        os.environ.update(self.environment)
        sys.dont_write_bytecode = True
        sys.path[:] = [str(self.source), *(p for p in sys.path if p != str(Path(__file__).parent))]
        importlib.invalidate_caches()
        spec = importlib.util.find_spec("raregrade")
        if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(self.source):
            print(f"raregrade would be imported from {spec and spec.origin}")
            return _WRONG_PACKAGE
        import pytest  # noqa: PLC0415 - the list can be printed and checked without it

        code = int(pytest.main([*_PYTEST, f"--basetemp={self.folder / 'tmp'}", *shlex.split(tests)]))
        sys.stdout.flush()
        return code


def read_table(path: Path) -> list[Mutation]:
    """The mutations of ``path``, in its order.

    Raises:
        TableError: an entry with other keys than those of ``Mutation``, or a name twice.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    wanted = {own.name for own in fields(Mutation)}
    for entry in entries:
        if set(entry) != wanted:
            raise TableError(f"{path.name}: an entry has {', '.join(entry)}; expected {', '.join(sorted(wanted))}")
    twice = [name for name, count in Counter(entry["name"] for entry in entries).items() if count > 1]
    if twice:
        raise TableError(f"{path.name}: two entries are called {twice[0]}; give each a name of its own")
    return [Mutation(**entry) for entry in entries]


def selected(mutations: Iterable[Mutation], patterns: Sequence[str]) -> list[Mutation]:
    """Those whose name matches one of ``patterns`` (such as ``gate-*``); all of them without patterns."""
    return [m for m in mutations if not patterns or any(fnmatch.fnmatchcase(m.name, p) for p in patterns)]


def judged(mutation: Mutation, run: Run) -> Outcome:
    """What ``run``, of the tests of ``mutation`` with the mistake in place, says."""
    if run.code == _FAILED:
        return Outcome(mutation, KILLED, run.seconds, run.detail)
    if run.code == 0:
        return Outcome(mutation, SURVIVED, run.seconds, mutation.tests)
    # Neither passed nor failed: the mistake cannot be imported, no test was selected, or it ran without an end.
    return Outcome(mutation, UNCLEAR, run.seconds, run.detail)


def preload() -> None:
    """Import what tests import beside the package, as far as it is installed."""
    os.environ.update(OMP_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true")  # as tests/conftest.py sets them
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    if "raregrade" in sys.modules or threading.active_count() > 1:
        raise TableError("what PRELOADED names imports raregrade or starts threads; take that name out")
    gc.freeze()  # pytest collects garbage again and again, and need not look at all this


def run_all(root: Path, mutations: Sequence[Mutation], jobs: int) -> list[Outcome]:
    """The outcomes of ``mutations``, ``jobs`` runs of pytest at a time; each is printed when it is known."""
    outcomes = [Outcome(m, STALE, 0.0, problem) for m in mutations if (problem := m.problem(root))]
    print(*outcomes, sep="\n", end="\n" if outcomes else "", flush=True)
    groups: dict[str, Group] = {}
    for mutation in mutations:
        if not mutation.problem(root):
            groups.setdefault(mutation.tests, Group(mutation.tests, [])).waiting.append(mutation)
    if not groups:
        return outcomes
    preload()
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        trees = [Tree(root, Path(name) / str(number)) for number in range(min(jobs, len(groups)))]
        trees[0].check()
        try:
            for group in _worked_off(trees, list(groups.values())):
                outcomes += group.outcomes
        finally:
            for tree in trees:
                tree.stop()
            gc.unfreeze()  # else libraries report at exit what was never collected
    return outcomes


def _worked_off(trees: Sequence[Tree], groups: list[Group]) -> list[Group]:
    """``groups`` with their outcomes; each is one tree's from beginning to end."""
    done: list[Group] = []
    idle, busy = list(trees), dict[Tree, Group]()
    while groups or busy:
        while groups and idle:
            tree, group = idle.pop(), groups.pop(0)
            busy[tree] = group
            tree.start(group.tests)
        time.sleep(_PAUSE_SECONDS)
        for tree, group in list(busy.items()):
            run = tree.finished()
            if run is not None and not _next(tree, group, run):
                del busy[tree]
                idle.append(tree)
                done.append(group)
    return done


def _next(tree: Tree, group: Group, run: Run) -> bool:
    """Take note of ``run`` and start the next one of ``group``; False where there is none."""
    if group.current is not None:
        group.outcomes.append(judged(group.current, run))
        print(group.outcomes[-1], flush=True)
        tree.mend()
    elif run.code != 0:
        group.outcomes = [Outcome(m, BASELINE, run.seconds, run.detail) for m in group.waiting]
        print(*group.outcomes, sep="\n", flush=True)
        return False
    if not group.waiting:
        return False
    group.current = group.waiting.pop(0)
    tree.break_by(group.current)
    tree.start(group.tests)
    return True


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line of counts, then what is not killed."""
    counts = Counter(outcome.state for outcome in outcomes)
    states = [f"{counts[state]} {state}" for state in (KILLED, SURVIVED, STALE, BASELINE, UNCLEAR) if counts[state]]
    lines = [f"{len(outcomes)} mutations: {', '.join(states)}"]
    return "\n".join([*lines, *(f"  {outcome}" for outcome in outcomes if outcome.state != KILLED)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line selects: 0 where every mutation is killed, 1 where one is not, 2 if nothing can run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="names, such as gate-*")
    parser.add_argument("--jobs", type=int, default=1, help="runs of pytest at a time (1)")
    parser.add_argument("--list", action="store_true", help="print the entries and run nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to test (this one)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that a run under way is ended too
    try:
        mutations = selected(read_table(options.root / TABLE), options.only)
        if not mutations:
            raise TableError(f"no entry of {TABLE} matches {' '.join(options.only)}; --list prints them")
        if options.list:
            for mutation in mutations:
                print(f"{mutation.name:<38} {mutation.file:<28} {mutation.tests}")
            return 0
        outcomes = run_all(options.root.resolve(), mutations, max(1, options.jobs))
    except TableError as err:
        print(err, file=sys.stderr)
        return 2
    print(f"\n{summary(outcomes)}")
    return 0 if all(outcome.state == KILLED for outcome in outcomes) else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the end of the interpreter, at which some of what is preloaded prints leaks below the summary.
    os._exit(code)
