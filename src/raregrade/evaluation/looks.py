"""How often the test split of a dataset was looked at: a ledger of the comparisons that it has served.

A test split proves something the first time. Whoever compares, changes something and compares again chooses by it in
the end, and the best of twenty looks is partly luck. That cannot be forbidden, so it is counted and shown.

A look is a comparison: the moment at which models are told apart by what they say of the test images. The same models
compared again are no new look; another model, seed or decision rule among them makes one. A report of a single model is
not counted, since every comparison is made of reports. The ledger lies on one machine (``.raregrade/test-looks.json``,
or the file that ``RAREGRADE_TEST_LOOKS`` names); steps add what MLflow knows of other machines.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np

from raregrade.atomic import write_error, write_text
from raregrade.errors import DataError
from raregrade.evaluation.candidates import Candidate

FILE_VARIABLE = "RAREGRADE_TEST_LOOKS"
_DEFAULT_FILE = Path(".raregrade/test-looks.json")
_LOCK_SECONDS = 60.0
_SCHEMA = 1


@dataclass(frozen=True)
class Look:
    """One comparison on one test split.

    Attributes:
        split: names the test split: the content hash of its dataset, or of its rows where no dataset is known.
        identity: 16 hex characters of a hash of what the compared models say of it.
    """

    split: str
    identity: str

    @classmethod
    def of(cls, candidates: Mapping[str, Sequence[Candidate]]) -> Look:
        """The look that a comparison of ``candidates`` is, whatever their order."""
        members = [candidate for group in candidates.values() for candidate in group]
        said = sorted(_digest(c.decision.to_json(), c.predictions.probs("test")) for c in members)
        known = [str(c.report["dataset"]["content_hash"]) for c in members if c.report.get("dataset")]
        return cls(known[0] if known else _rows(members[0]), _digest(said)[:16])


def ledger_file() -> Path:
    """Where the ledger lies."""
    return Path(os.environ.get(FILE_VARIABLE) or _DEFAULT_FILE)


def record(look: Look, ledger: Path, elsewhere: Iterable[str] = ()) -> int:
    """Write ``look`` down unless it is known, and those of other machines; how many there are of its test split.

    Safe to call from several processes at once.

    Args:
        look: the comparison that is being made.
        ledger: the file; made where it is missing.
        elsewhere: identities of looks at the same test split that another store knows.

    Raises:
        DataError: the ledger is not one, or another process holds it.
        WriteError: it cannot be written.
    """
    with _locked(ledger):
        splits = _read(ledger)
        known = splits.get(look.split, [])
        looks = list(dict.fromkeys([*known, *sorted(elsewhere), look.identity]))
        if looks != known:
            content = {"schema": _SCHEMA, "splits": {**splits, look.split: looks}}
            write_text(ledger, json.dumps(content, indent=2) + "\n")
    return len(looks)


@contextmanager
def _locked(ledger: Path) -> Iterator[None]:
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(ledger.with_name(f"{ledger.name}.lock"), timeout=_LOCK_SECONDS)
        lock.acquire()
    except filelock.Timeout as err:
        raise DataError(
            f"another process has held {err.lock_file} for {_LOCK_SECONDS:.0f} s; end it, and run again"
        ) from err
    except OSError as err:
        raise write_error(err, ledger) from err
    try:
        yield
    finally:
        lock.release()


def _read(ledger: Path) -> dict[str, list[str]]:
    if not ledger.exists():
        return {}
    try:
        content = json.loads(ledger.read_text(encoding="utf-8"))
        return {str(split): [str(look) for look in looks] for split, looks in content["splits"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataError(
            f"{ledger}: is no ledger of looks at test splits ({err!r}); restore it, or delete it to count anew"
        ) from err


def _rows(candidate: Candidate) -> str:
    """A name for the test rows of predictions whose dataset is unknown."""
    predictions = candidate.predictions
    targets = np.nan_to_num(np.asarray(predictions.targets("test"), dtype=np.float64), nan=-1.0)
    names = [str(name) for name in (*predictions.image_ids("test"), *predictions.groups("test"))]
    return "rows-" + _digest(names, targets)[:32]


def _digest(content: object, values: np.ndarray | None = None) -> str:
    found = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    if values is not None:
        # Single precision, as predictions are stored: the same model read from CSV is the same model.
        found.update(np.ascontiguousarray(values, dtype=np.float32).tobytes())
    return found.hexdigest()
