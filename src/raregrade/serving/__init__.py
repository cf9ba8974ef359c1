"""The model that takes images and returns grades, as a Python object and as an MLflow model."""
