"""Studies of a loss's parameters: search spaces, storage, workers that may die at any time, and the verdict."""

import importlib.util

from raregrade.errors import UserError


def require_optuna() -> None:
    """Raise UserError, which names the extra to install, where Optuna is missing. Call it before the modules here."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError("tuning needs optuna, which is not installed. Run `pip install 'raregrade[tuning]'`.")
