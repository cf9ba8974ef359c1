"""Kubeflow pipelines, their compiled YAML beside them, and what compiles, runs and submits them.

Not part of the installed package: ``raregrade pipeline`` imports it from the folder that holds it.
"""
