"""Loss functions for ordinal, imbalanced and hierarchical labels, and the registry that builds them by name."""
