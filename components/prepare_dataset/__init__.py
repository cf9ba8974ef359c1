"""The component ``prepare_dataset``."""
