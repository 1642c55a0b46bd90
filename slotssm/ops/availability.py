"""Which backends this machine has, found out once."""

import importlib.util
import logging
import warnings

import torch

_log = logging.getLogger("slotssm.ops")
_compiled: dict[str, bool] = {}


# a constant to torch.compile, which must not trace into numba
@torch.compiler.assume_constant_result
def kernels_compile(dtype: str) -> bool:
    """Whether numba can compile the CPU kernels for float32 or float64 here; a failure is warned of once."""
    if dtype not in _compiled:
        try:
            from slotssm.ops import fused_convolution, fused_scan  # numba is loaded only where it is used

            fused_scan.prepare(dtype)
            fused_convolution.prepare(dtype)
            _compiled[dtype] = True
        except Exception as error:
            _compiled[dtype] = False
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"numba cannot compile the kernels for {dtype} here ({type(error).__name__}: {reason}); "
                "slower torch operators take their place",
                RuntimeWarning,
                stacklevel=2,
            )
        _log.debug("numba kernels for %s: %s", dtype, "ready" if _compiled[dtype] else "missing")
    return _compiled[dtype]


def has_mamba_ssm() -> bool:
    """Whether the package `mamba_ssm` is installed."""
    return importlib.util.find_spec("mamba_ssm") is not None
