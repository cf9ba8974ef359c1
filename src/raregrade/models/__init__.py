"""timm backbones with a classification head, and the model folder on disk."""
