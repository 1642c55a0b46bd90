"""Measurements on this machine, and a description of the machine."""
