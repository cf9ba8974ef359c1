"""What the shell offers for values that have names. Quick, and silent where there is nothing to offer."""

from __future__ import annotations

from pathlib import Path


def complete_loss(incomplete: str) -> list[str]:
    """The losses of the nearest params.yaml, from the working directory upwards."""
    import yaml

    here = Path.cwd()
    path = next((found for folder in (here, *here.parents) if (found := folder / "params.yaml").is_file()), None)
    if path is None:
        return []
    try:
        losses = yaml.safe_load(path.read_text(encoding="utf-8"))["losses"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return []
    return [name for name in losses if name.startswith(incomplete)] if isinstance(losses, dict) else []


def complete_preset(incomplete: str) -> list[str]:
    """The presets that ship with raregrade."""
    from raregrade.config.presets import shipped_presets

    return [name for name in shipped_presets() if name.startswith(incomplete)]
