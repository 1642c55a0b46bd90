"""Layouts of sources, one module each."""
