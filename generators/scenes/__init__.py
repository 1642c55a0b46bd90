"""Scenes in three dimensions: solids, cameras, a ray caster, and the data sets that are made with them.

Modules that define a data set register it on import.
"""
