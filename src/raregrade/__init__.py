"""raregrade: which loss to train with, on your own labelled medical images."""

__version__ = "0.1.0"
