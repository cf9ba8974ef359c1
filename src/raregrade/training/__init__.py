"""The training loop, its optimisers and schedules, checkpoints and resume."""
