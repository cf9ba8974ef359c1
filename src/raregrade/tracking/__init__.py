"""MLflow runs and the lineage of data and code."""
