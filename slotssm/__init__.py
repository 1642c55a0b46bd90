"""Slot State Space Models: the core package.

Importing this package loads neither torch nor h5py; import the subpackage that you need
(`slotssm.ops`, `slotssm.layers`, `slotssm.models`, `slotssm.metrics`, ...).

`slotssm.load(path)` loads a trained model (`slotssm.experiments.trained_model.load`).
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {"load": "slotssm.experiments.trained_model"}
"""Names of this package that are imported at their first use, and the module of each."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
