"""Names that say by themselves in which order they are: none, mild, moderate, severe; stage I, stage II; T1, T2."""

from __future__ import annotations

import re
from collections.abc import Iterable

# One line per rank; a name has the rank of the word in it that says most.
_RANKS = (
    r"no|none|normal|healthy|absent|negative|sain|keine?",
    r"minimal|trace|doubtful|questionable",
    r"mild|low|slight|early|l[ée]ger|leicht",
    r"moderate|medium|intermediate|mod[ée]r[ée]|mittel",
    r"severe|high|advanced|s[ée]v[èe]re|schwer",
    r"very severe|critical|extreme|proliferative|proliferate",
)
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}


def in_order(names: Iterable[str]) -> list[str] | None:
    """``names``, lowest grade first; None where they do not say their order, or are fewer than three."""
    given = list(names)
    for rank in (_by_word, _by_number):
        ranks = {name: rank(name) for name in given}
        known = [r for r in ranks.values() if r is not None]
        if len(given) >= 3 and len(known) == len(given) == len(set(known)) and len({r[0] for r in known}) == 1:
            return sorted(given, key=lambda name: ranks[name] or ("", 0))
    return None


def _by_word(name: str) -> tuple[str, int] | None:
    words = re.sub(r"[\W_]+", " ", name.lower())
    # "Non-proliferative" is not the highest grade, and "very severe" holds "severe".
    words = re.sub(r"\bnon ?proliferati\w+", "", words)
    found = [rank for rank, pattern in enumerate(_RANKS) if re.search(rf"\b({pattern})\b", words)]
    return ("", max(found)) if found else None


def _by_number(name: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"(\D*?)[\s_-]*(\d+|[ivx]+)", name.lower().strip())
    if match is None:
        return None
    number = int(match[2]) if match[2].isdigit() else _ROMAN.get(match[2])
    return None if number is None else (match[1].strip(), number)
