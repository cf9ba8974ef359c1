"""The component ``compare_models``."""
