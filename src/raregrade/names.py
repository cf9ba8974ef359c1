"""Names in tables that people and other programs write: classes, patients, images, and gaps where one is missing.

One rule for every reader of a table, so that a label means the same in a folder of images and in a table of
predictions. Nothing here reads files.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal

# How programs write "no value": R, pandas, SQL dumps, spreadsheets, SAS, and people.
MISSING = frozenset(
    {
        "", "na", "n/a", "n.a.", "n.a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "none", "null", "<null>", "(null)",
        "nil", "\\n", "undefined", "unknown", "unk", "missing", "not available",
        ".", "-", "--", "---", "?", "??", "???",
    }
)  # fmt: skip
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_ID = "(id|ids|no|nr|num|number|name|key|code|uid|hash|idx|index|identifier|pseudonym)?"
_PATIENT = re.compile(rf"(anon|deid|pseudo)?(patient|subject|subj|participant|person|pat|pt){_ID}|idpatient|mrn|pid")
# May be an image's own number as well: worth a word only where several images share one, and few do.
_PERHAPS = re.compile(rf"(case|lesion|study|exam|examination|accession|eye|individual|donor|group|series){_ID}")
_ENDS = re.compile(r"^[\s\ufeff\u200b-\u200f\u2060]+|[\s\ufeff\u200b-\u200f\u2060]+$")
_LISTED = 5


def normalised(text: str) -> str:
    """``text`` in Unicode's composed form (NFC), without blanks and invisible characters at its ends."""
    return _ENDS.sub("", unicodedata.normalize("NFC", text))


def is_missing(text: str) -> bool:
    """Whether a cell holds a spelling of "no value", in any case: empty, NA, None, <NA>, n/a, ``-``, ``?``, …"""
    return normalised(text).lower() in MISSING


def number(text: str) -> Decimal | None:
    """The finite number that ``text`` writes in digits ("3", "3.0", "03", "3e0"), or None."""
    text = normalised(text)
    return Decimal(text) if _NUMBER.fullmatch(text) else None


class ClassNames:
    """Finds the class that a text names: by its name or, where the name is a number, by the same number.

    "3", "3.0" and " 3 " all name a class called "3".

    Args:
        classes: names in order; no two of them are the same text or the same number.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._by_text = {normalised(name): i for i, name in enumerate(classes)}
        numbers = ((number(name), i) for i, name in enumerate(classes))
        self._by_number = {value: i for value, i in numbers if value is not None}
        # What a table of True and False means: 1 and 0, unless the classes are called so.
        self._by_truth = {"true": Decimal(1), "false": Decimal(0)}

    @property
    def are_numbers(self) -> bool:
        """Whether at least one name is a number: a number in a table is then a name, never a position."""
        return bool(self._by_number)

    def find(self, text: str) -> int | None:
        """The position of the class that ``text`` names, or None."""
        text = normalised(text)
        if text in self._by_text:
            return self._by_text[text]
        value = self._by_truth[text.lower()] if text.lower() in self._by_truth else number(text)
        return None if value is None else self._by_number.get(value)


def suspicious_ids(ids: Iterable[str], what: str) -> list[str]:
    """Ids that differ only in case, blanks or the spelling of a number ("3", "3.0", "003"), one sentence for all.

    Args:
        ids: as the table has them, with repetitions.
        what: what they name, such as "patient".
    """
    by_key: dict[str, set[str]] = {}
    for name in set(ids):
        by_key.setdefault(_looseness(name), set()).add(name)
    alike = sorted((sorted(names) for names in by_key.values() if len(names) > 1), key=lambda names: names[0])
    if not alike:
        return []
    shown = "; ".join(", ".join(map(repr, names)) for names in alike[:_LISTED])
    more = f"; and {len(alike) - _LISTED} more" if len(alike) > _LISTED else ""
    return [f"{what} ids that differ only in case, blanks or the spelling of a number: {shown}{more}"]


def outsized_id(ids: Sequence[str], what: str) -> list[str]:
    """An id that far more rows share than any other: perhaps an unknown spelling of "missing". One sentence, or none.

    Reported where it has at least 10 rows, a fifth of all, and five times as many as the next.
    """
    counts = Counter(ids).most_common(2)
    if len(counts) < 2:
        return []
    (name, most), (_, second) = counts
    if most < max(10, len(ids) / 5, 5 * second):
        return []
    return [
        f"{what} {name!r} has {most} of {len(ids)} images, the next at most {second}: does it stand for a missing id?"
    ]


def patient_like(columns: Iterable[str]) -> list[str]:
    """The columns whose names say that they hold patients: patient, PatientID, "Patient ID", subject, MRN, …"""
    return [c for c in columns if _PATIENT.fullmatch(_compact(c))]


def perhaps_patient_like(columns: Iterable[str]) -> list[str]:
    """The columns that may hold patients, or lesions, or else an image's own number: case, lesion_id, study, eye, …"""
    return [c for c in columns if _PERHAPS.fullmatch(_compact(c))]


def unit_of(image_ids: Sequence[str], group_ids: Sequence[str]) -> Literal["images", "patients"]:
    """What the groups of a table are: "images" where each image is its own group, else "patients" (or lesions, …)."""
    return "images" if all(i == g for i, g in zip(image_ids, group_ids, strict=True)) else "patients"


def _compact(column: str) -> str:
    return re.sub(r"[\W_]", "", column).lower()


def _looseness(name: str) -> str:
    """What alike ids have in common."""
    text = "".join(normalised(name).casefold().split())
    match = re.fullmatch(r"0*(\d+?)(\.0*)?", text, re.ASCII)
    return match[1] if match else text
