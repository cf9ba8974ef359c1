"""One module per step of the pipeline: plain functions from typed parameters and paths to outputs on disk."""
