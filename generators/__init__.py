"""Procedural videos: physics, rasteriser, one module per data set, and the parallel writer.

Modules that define a data set register it on import; all modules are imported here.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
