"""The component ``read_champion``."""
