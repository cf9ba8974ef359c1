"""Kubeflow components, one folder each. A component is an import, one call of its step, and handing over artifacts.

What a component needs beyond that lives in ``raregrade.steps``: only ``raregrade`` is installed in the image.
"""
