"""Procedural videos: physics, rasteriser, one module per data set, and the parallel writer.

Every module of this package that makes a data set registers it when it is imported, which happens here.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
