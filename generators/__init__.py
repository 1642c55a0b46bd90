"""Procedural videos: physics, rasteriser, one module per data set, and the parallel writer."""
