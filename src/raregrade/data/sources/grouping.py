"""Whether a table knows patients that the split by group would tear apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

from raregrade.data.checks import Finding
from raregrade.names import is_missing, normalised, patient_like, perhaps_patient_like
from raregrade.tables import TextTable

_IN_PATH = re.compile(r"(patient|subject|subj|sub-|case)[ _-]?\d+", re.IGNORECASE)
_MOST_IMAGES_EACH = 20


def ungrouped(table: TextTable, group: str | None, images: Sequence[str]) -> list[Finding]:
    """What speaks against dealing the images of ``table`` by column ``group``, or one by one where it is None.

    A column of patients with several images each that ``group`` does not keep together is ``ungrouped``, an error.
    Columns that may hold patients, patients in the names of ``images`` and the mere lack of a group column are
    ``no_groups``, a warning.
    """
    own = images if group is None else [normalised(v) for v in table.column(group)]
    for name in patient_like([c for c in table.columns if c != group]):
        torn = _torn([normalised(v) for v in table.column(name)], own)
        if torn is not None:
            patient, count, several = torn
            by = "data.group_column is not set" if group is None else f"data.group_column is {group}"
            what = "images" if group is None else f"values of {group}"
            text = (
                f"{by}, but the column {name!r} of {table.path.name} looks like the patient: {patient!r} has {count} "
                f"{what}, which may lie in train and in test (so for {several} in all)"
            )
            return [Finding("ungrouped", text)]
    if group is not None:
        return []
    return [Finding("no_groups", text) for text in _warnings(table, images)]


def _warnings(table: TextTable, images: Sequence[str]) -> list[str]:
    unset = (
        "data.group_column is not set: each image is its own group, so images of one patient may lie in "
        "train and in test"
    )
    for name in perhaps_patient_like(table.columns):
        values = [normalised(v) for v in table.column(name)]
        torn = _torn(values, images)
        if torn is not None and len(set(values)) * _MOST_IMAGES_EACH >= len(values):
            return [f"{unset} (column {name!r} of {table.path.name}: {torn[0]!r} has {torn[1]} images)"]
    patients = [match[0] if (match := _IN_PATH.search(name)) else "" for name in images]
    torn = _torn(patients, images)
    return [unset if torn is None else f"{unset} (files are named after patients: {torn[0]!r} has {torn[1]} images)"]


def _torn(patients: Sequence[str], groups: Sequence[str]) -> tuple[str, int, int] | None:
    """The patient with most groups, how many those are, and how many patients have several; None where none has."""
    of_patient: dict[str, set[str]] = {}
    for patient, group in zip(patients, groups, strict=False):
        if not is_missing(patient):
            of_patient.setdefault(patient, set()).add(group)
    several = {patient: len(own) for patient, own in of_patient.items() if len(own) > 1}
    if not several:
        return None
    patient = max(several, key=lambda name: several[name])
    return patient, several[patient], len(several)
