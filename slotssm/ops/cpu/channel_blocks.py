"""Channel blocks: the part of a kernel's work that its buffers hold at a time, and the loop over its vectors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir

from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES, Index, VectorBuilder


class ChannelBlock(NamedTuple):
    """A chunk of steps of adjacent channels of one sequence.

    Attributes:
        b: sequence.
        t: first step.
        next_t: first step of the chunk that the kernel visits next (may lie outside the sequence).
        steps: number of steps.
        part: number of the block within its sequence.
        start: first channel.
        channels: number of channels.
        vectors: number of vectors that the channels fill.
    """

    b: int
    t: int
    next_t: int
    steps: int
    part: int
    start: int
    channels: int
    vectors: int


@numba.njit
def channel_block(task: int, block_channels: int, x: np.ndarray) -> ChannelBlock:
    """The block of a task, still without steps, for x [B, L, E] and `block_channels` channels a task."""
    num_blocks = -(-x.shape[2] // block_channels)
    part = task % num_blocks
    start = part * block_channels
    channels = min(block_channels, x.shape[2] - start)
    width = VECTOR_BYTES // x.itemsize
    return ChannelBlock(task // num_blocks, 0, 0, 0, part, start, channels, -(-channels // width))


@numba.njit
def at_steps(block: ChannelBlock, t: int, next_t: int, steps: int) -> ChannelBlock:
    """The block at a chunk of steps."""
    return ChannelBlock(block.b, t, next_t, steps, block.part, block.start, block.channels, block.vectors)


@numba.njit
def padded_channels(block_channels: int, x: np.ndarray) -> int:
    """Channels of a block, rounded up to whole vectors."""
    width = VECTOR_BYTES // x.itemsize
    return -(-block_channels // width) * width


@contextmanager
def loop_over_vectors(
    builder: VectorBuilder, block: Any, *prefetched: Any
) -> Iterator[tuple[tuple[Index, Index, Index], Index, Index, ir.Value]]:
    """Emit loops over the steps of a block and, in memory order, over its vectors.

    Yields the position in arrays [B, L, E], the step and the vector within the block, and the mask of the channels.
    For the arrays in `prefetched`, the same position of the next chunk is fetched into the cache.
    """
    with builder.loop(block.steps) as i, builder.loop(block.vectors) as v:
        channel = v * builder.width
        for array in prefetched:
            array[block.b, block.next_t + i, block.start + channel].prefetch()
        yield (block.b, block.t + i, block.start + channel), i, v, builder.mask(block.channels - channel)
