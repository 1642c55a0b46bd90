"""The experiments: what is compared, with which settings, and how the table and the figures show it."""
