"""Metrics, statistics, figures and reports, all from tables of predictions.

Nothing here knows models, losses or training: predictions made by any other program are judged the same
way. ``metrics`` and ``statistics`` need numpy alone; ``figures`` and ``html`` bring matplotlib and jinja2.
"""
