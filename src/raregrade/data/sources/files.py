"""Finding the image file that a table means: other separators, other Unicode forms, no suffix, another folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from raregrade.errors import DataError
from raregrade.names import normalised

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jp2", ".ppm", ".pgm"})
_SHOWN = 3


class ImageFiles:
    """The image files that a table names.

    Args:
        root: the raw data.
        folder: where in ``root`` the images lie; "" for ``root`` itself.
        suffix: what the names in the table lack, such as ".png"; "" for nothing.

    Raises:
        DataError: ``root`` has no such folder.
    """

    def __init__(self, root: Path, folder: str = "", suffix: str = "") -> None:
        self._root, self._prefix, self._suffix = root, f"{folder.rstrip('/')}/" if folder else "", suffix
        self._folder = root / folder
        if not self._folder.is_dir():
            there = sorted(f"{p.name}/" for p in root.iterdir() if p.is_dir())
            raise DataError(f"data.image_folder: no folder {self._folder}; {root} holds {_some(there, 'folder')}")

    def find(self, name: str) -> str:
        """The path, relative to ``root`` and with ``/`` between folders, of the file that the table calls ``name``.

        It is the file at that path, also where the table writes ``\\`` between folders or the file's name has another
        Unicode form. Else it is the only file of that name in any folder below or, for a name without a suffix, the
        only image.

        Raises:
            DataError: no such file, or several; says what is there.
        """
        wanted = name + self._suffix
        for path in dict.fromkeys((wanted, wanted.replace("\\", "/"))):
            if (self._folder / path).is_file():
                return self._prefix + path
        portable = posixpath.normpath(normalised(wanted.replace("\\", "/")))
        found = self._by_path.get(portable) or self._elsewhere(portable)
        if found is None:
            raise DataError(f"no image file {self._folder / wanted}; {self._instead(portable)}")
        return self._prefix + found

    def _elsewhere(self, name: str) -> str | None:
        """The only file of that name in any folder; a name without an image suffix may lack it."""
        same = self._by_name.get(name, [])
        if not same and posixpath.splitext(name)[1].lower() not in SUFFIXES:
            same = self._by_stem.get(name, [])
        if len(same) > 1:
            raise DataError(
                f"{name!r} may be any of {_some(same, 'file')} below {self._folder}. Set data.image_folder or "
                "data.image_suffix"
            )
        return same[0] if same else None

    def _instead(self, portable: str) -> str:
        """What there is: files of that name in another folder, case or format, or else any."""
        base = posixpath.basename(portable)
        alike = [self._folded[portable.casefold()]] if portable.casefold() in self._folded else []
        alike = alike or self._by_name.get(base, []) or self._by_stem.get(posixpath.splitext(base)[0], [])
        if alike:
            return f"there is {_some(alike, 'file')}: set data.image_folder or data.image_suffix, or mend the name"
        return f"{self._folder} holds {_some(sorted(self._by_path), 'file')}"

    @cached_property
    def _by_path(self) -> dict[str, str]:
        """Path below the folder in composed Unicode -> the same as the disk has it."""
        found: dict[str, str] = {}
        for folder, _, names in os.walk(self._folder, followlinks=True):
            below = Path(folder).relative_to(self._folder)
            paths = ((below / name).as_posix() for name in names)
            found |= {normalised(path): path for path in paths}
        return found

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {path.casefold(): there for path, there in self._by_path.items()}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped((posixpath.basename(path), there) for path, there in self._by_path.items())

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        parts = ((posixpath.splitext(posixpath.basename(path)), there) for path, there in self._by_path.items())
        return _grouped((stem, there) for (stem, suffix), there in parts if suffix.lower() in SUFFIXES)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return {key: sorted(values) for key, values in groups.items()}


def _some(names: list[str], what: str) -> str:
    """A few of ``names``, and how many there are."""
    if not names:
        return f"no {what}"
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{len(names)} {what}s, such as {shown}"
