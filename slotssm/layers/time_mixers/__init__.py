"""Time mixers: per slot (Mamba, Mamba-2, S4D, S5), or joint over all slots (causal attention, SlotGRU, RIM).

Modules whose time mixer can be configured register it on import; all modules are imported here.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
