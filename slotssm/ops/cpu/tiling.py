"""What there is to know of the kernels' work without numba: arrays, names of types, tasks, stored states."""

import numpy as np
import torch
from torch import Tensor

SCAN_CHUNK_STEPS = 32
"""Steps between two stored states of the fused scan."""
BLOCK_CHANNELS = 128
"""Most channels of a task: their rows of a chunk stay in the second-level cache."""


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype without its module, as numba knows it."""
    return str(dtype).removeprefix("torch.")


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory; copied only if its last axis is not contiguous."""
    tensor = tensor.detach()
    return (tensor if tensor.stride(-1) == 1 else tensor.contiguous()).numpy()


def tasks_of(x: Tensor) -> tuple[int, int]:
    """Number of tasks for x, [B, L, E], and channels of each; few sequences are cut finer, for the sake of threads."""
    batch, _, num_channels = x.shape
    for_threads = min(4, -(-8 // max(1, batch)), -(-num_channels // 16))
    num_blocks = max(1, for_threads, -(-num_channels // BLOCK_CHANNELS))
    # whole vectors of any processor
    block_channels = max(16, -(-num_channels // (16 * num_blocks)) * 16)
    return batch * -(-num_channels // block_channels), block_channels
