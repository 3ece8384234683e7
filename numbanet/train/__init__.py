"""Training: runs, checkpoints, metrics."""
