"""The component ``tune_worker``."""
