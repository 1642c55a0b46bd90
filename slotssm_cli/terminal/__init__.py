"""Terminal output: results, progress, and messages with the option names of the command line."""
