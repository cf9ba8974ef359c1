"""Step ``phantom``: draw the synthetic raw dataset."""

from __future__ import annotations

from pathlib import Path

from raregrade.config import PhantomSection


def phantom(section: PhantomSection, out: Path) -> None:
    """Draw the images, masks and labels that ``section`` describes into ``out``.

    Makes raw data and no claim about them, so it logs no run: the run of ``prepare`` records what was drawn.
    """
    from raregrade.data.phantom import draw_phantom

    draw_phantom(section.phantom, section.seed, out)
