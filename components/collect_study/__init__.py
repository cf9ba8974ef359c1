"""The component ``collect_study``."""
