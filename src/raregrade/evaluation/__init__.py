"""Metrics, statistics, figures and reports, all from tables of predictions."""
