"""The dtypes that scans are computed in."""

import torch
from torch import Tensor


def state_dtype(x: Tensor) -> torch.dtype:
    """float64 for inputs in float64; float32 for all others, half precision included."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype as numpy and numba spell it, for instance `float32`."""
    return str(dtype).removeprefix("torch.")
