"""The component ``evaluate_champion``."""
