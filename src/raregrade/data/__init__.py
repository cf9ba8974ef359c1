"""Datasets: readers of raw images, splits, the decoded store, verification, augmentation and loading."""
