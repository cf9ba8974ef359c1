"""The component ``compare_folds``."""
