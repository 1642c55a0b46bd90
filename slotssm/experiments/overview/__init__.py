"""What there is in a folder of runs, a reproduction or a sweep: lists, progress, and tables of groups."""
