"""Scenes in three dimensions: solids, cameras, a ray caster, and the data sets that are made with them.

Modules that define a data set register it on import; all modules are imported here.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
