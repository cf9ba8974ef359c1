"""The component ``train_distributed``."""
