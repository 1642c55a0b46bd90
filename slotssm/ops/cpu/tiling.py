"""How the work of the kernels is divided: into tasks of a few channels each, and along time into chunks."""

import numpy as np
from torch import Tensor

SCAN_CHUNK_STEPS = 32
"""Steps of a chunk of the scan; the state at the start of each chunk is stored for the backward pass."""
MAX_BLOCK_CHANNELS = 128
"""Channels of the largest task: its buffers for one chunk then fit in the second-level cache."""


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor as an array that shares its memory; a copy only if its last axis is not contiguous."""
    tensor = tensor.detach()
    return (tensor if tensor.stride(-1) == 1 else tensor.contiguous()).numpy()


def divide(x: Tensor) -> tuple[int, int]:
    """Number of tasks for x, [B, L, E], and channels of each task.

    A task is a block of channels of one sequence. Small batches are divided into smaller blocks, so that there are
    enough tasks for several threads.
    """
    batch, _, num_channels = x.shape
    for_threads = min(4, -(-8 // max(1, batch)), -(-num_channels // 16))
    num_blocks = max(1, for_threads, -(-num_channels // MAX_BLOCK_CHANNELS))
    # a multiple of the widest vector of any processor
    block_channels = max(16, -(-num_channels // (16 * num_blocks)) * 16)
    return batch * -(-num_channels // block_channels), block_channels
