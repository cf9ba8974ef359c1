"""Step ``rollback``: ``champion`` back to the version that had it before. The gate is not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raregrade.tracking import Tracking

if TYPE_CHECKING:
    from raregrade.registry import PromotionResult


def rollback(name: str, *, tracking: Tracking) -> PromotionResult:
    """Point ``champion`` of the registered model ``name`` at its previous version; again, at the one before that.

    Raises:
        RegistryError: no such model, it has no champion, or there is nothing before.
        UserError: the registry cannot be reached.
    """
    from raregrade.registry import rollback as move_back

    return move_back(name, tracking=tracking)
