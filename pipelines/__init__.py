"""The Kubeflow pipelines, their compiled YAML beside them, and the tasks that they share."""
