"""Readers of raw datasets, one module a format. Each yields records that ``prepare`` turns into a store."""
