"""The presets that come with the package, by name: what papers trained with, and phantoms to try raregrade on."""

from __future__ import annotations

from pathlib import Path

from raregrade.errors import ConfigError, did_you_mean

_FOLDER = Path(__file__).parents[1] / "presets"


def shipped_presets() -> dict[str, Path]:
    """The files of the shipped presets by name, those of the papers first."""
    return {path.stem: path for folder in ("papers", "phantom") for path in sorted((_FOLDER / folder).glob("*.yaml"))}


def shipped_preset(name: str) -> Path:
    """The file of a shipped preset. Raises ConfigError, which lists all, where there is none of that name."""
    shipped = shipped_presets()
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        f"preset {name!r}: no such file, and no preset of that name{did_you_mean(name, shipped)}. "
        f"Shipped: {', '.join(shipped)}. `raregrade presets` describes them."
    )


def preset_file(preset: str | Path) -> Path:
    """The file that ``--preset`` means: a shipped preset by its name, or a path (``./hbce`` where the names clash).

    Raises:
        ConfigError: a bare word that is neither.
    """
    path = Path(preset)
    is_path = str(preset) != path.name or path.suffix in (".yaml", ".yml")
    if is_path or (path.is_file() and str(preset) not in shipped_presets()):
        return path
    return shipped_preset(str(preset))


def describe_preset(path: Path) -> str:
    """What a preset is for: its first line, a comment."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").strip()
