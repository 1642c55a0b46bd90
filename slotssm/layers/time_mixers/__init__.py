"""What carries slots through time: for every slot by itself (Mamba, Mamba-2, S4D, S5) or for all slots together.

Every module of this room that has a time mixer for configurations registers it when it is imported, which happens here.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
