"""The component ``promote_model``."""
