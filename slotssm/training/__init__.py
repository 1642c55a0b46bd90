"""Training: the run directory, checkpoints, and the trainer."""
