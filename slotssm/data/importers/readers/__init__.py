"""Readers of foreign file formats: records, run lengths, images and videos as arrays."""
