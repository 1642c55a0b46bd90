"""Training: run directories, checkpoints, and the trainer."""
