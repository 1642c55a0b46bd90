"""Cells of a reproduction as jobs of their own: several at a time on this machine, or submitted to Slurm."""
