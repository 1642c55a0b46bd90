"""What all layouts share: the interface of a source, the division into splits, and the cutting of videos into clips."""
