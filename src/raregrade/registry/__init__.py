"""The model registry: register, gate, promote, rollback."""

from raregrade.registry.catalog import RegisteredVersion, fetch_model, list_models
from raregrade.registry.gate import GateResult, evaluate_gate
from raregrade.registry.promote import PromotionResult, promote, rollback
from raregrade.registry.register import RegistrationResult, register_winner

__all__ = [
    "GateResult",
    "PromotionResult",
    "RegisteredVersion",
    "RegistrationResult",
    "evaluate_gate",
    "fetch_model",
    "list_models",
    "promote",
    "register_winner",
    "rollback",
]
