"""Slot State Space Models: the core package.

Importing this package loads neither torch nor h5py; import the subpackage that you need
(`slotssm.ops`, `slotssm.layers`, `slotssm.models`, `slotssm.metrics`, ...).
"""

__version__ = "0.1.0"
