"""Readers of other people's file formats: records, run lengths, pictures and videos as arrays."""
