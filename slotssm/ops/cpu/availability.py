"""Whether the kernels can be compiled on this machine, found out once for each dtype."""

import importlib.util
import logging
import threading

import torch

from slotssm.ops.cpu import attention_operator, convolution_operator, scan_operator
from slotssm.ops.operators.constants import constant_when_compiled

_log = logging.getLogger("slotssm")
_failures: dict[str, str | None] = {}
_lock = threading.Lock()


# torch.compile must not trace into numba
@constant_when_compiled
def compile_failure(dtype: str) -> str | None:
    """Why numba cannot compile the kernels for float32 or float64 here; None if it can."""
    # a trace only needs the operators, and numba must not be loaded during one
    if torch.compiler.is_compiling():
        return _failures.get(dtype) if importlib.util.find_spec("numba") else "numba is missing"
    with _lock:
        if dtype not in _failures:
            try:
                scan_operator.prepare(dtype)
                convolution_operator.prepare(dtype)
                attention_operator.prepare(dtype)
                _failures[dtype] = None
            except Exception as error:
                _failures[dtype] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                _log.warning(
                    "the CPU kernels for %s cannot be compiled here (%s); slower torch operators take their place",
                    dtype,
                    _failures[dtype],
                )
    return _failures[dtype]
