"""The model registry: register, gate, promote, rollback."""
