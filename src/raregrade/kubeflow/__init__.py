"""Kubeflow: the pipelines and their components, what compiles and runs them here, and the client of a cluster.

``pipelines`` and ``components`` lie at the top of the checkout, and links lead to them from here, so that they are a
part of the package. The only package that imports kfp.
"""
