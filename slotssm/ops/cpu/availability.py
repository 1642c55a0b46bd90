"""Which backends this machine has, found out once."""

import importlib
import importlib.util
import logging
import threading
import warnings

import torch

from slotssm.ops import fused_convolution, fused_scan

_log = logging.getLogger("slotssm.ops")
_failures: dict[str, str | None] = {}
_lock = threading.Lock()


# a constant to torch.compile, which must not trace into numba
@torch.compiler.assume_constant_result
def compile_failure(dtype: str) -> str | None:
    """Why numba cannot compile the CPU kernels for float32 or float64 here; None if it can."""
    # a trace needs the operators only, and is no place to load numba in
    if torch.compiler.is_compiling():
        return _failures.get(dtype) if importlib.util.find_spec("numba") else "numba is missing"
    with _lock:
        if dtype not in _failures:
            try:
                fused_scan.prepare(dtype)
                fused_convolution.prepare(dtype)
                _failures[dtype] = None
            except Exception as error:
                _failures[dtype] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                warnings.warn(
                    f"the CPU kernels for {dtype} cannot be compiled here ({_failures[dtype]}); "
                    "slower torch operators take their place",
                    RuntimeWarning,
                    stacklevel=2,
                )
    return _failures[dtype]


def has_mamba_ssm() -> bool:
    """Whether the CUDA kernel of the package `mamba_ssm` can be loaded; a broken installation is warned of once."""
    if "mamba_ssm" not in _failures:
        failure = None
        try:
            importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        except Exception as error:
            failure = str(error)
            if not isinstance(error, ModuleNotFoundError):
                warnings.warn(f"mamba_ssm is installed, but broken ({error})", RuntimeWarning, stacklevel=2)
        _failures["mamba_ssm"] = failure
    return _failures["mamba_ssm"] is None
