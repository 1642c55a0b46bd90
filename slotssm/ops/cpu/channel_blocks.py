"""Blocks: the share of a kernel's work that its buffers hold at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir

from slotssm.ops.lanes import VECTOR_BYTES, Index, Lanes


class Block(NamedTuple):
    """A chunk of steps of some channels of one sequence.

    Attributes:
        b: sequence.
        t: first step.
        ahead: first step of the chunk that comes next (may lie outside).
        steps: number of steps.
        part: number of the block of channels within its sequence.
        start: first channel.
        channels: number of channels.
        vectors: number of vectors that they fill.
    """

    b: int
    t: int
    ahead: int
    steps: int
    part: int
    start: int
    channels: int
    vectors: int


@numba.njit
def block_of(task: int, block_channels: int, x: np.ndarray) -> Block:
    """The block without steps of a task: sequences of x, [B, L, E], in blocks of so many channels."""
    num_blocks = -(-x.shape[2] // block_channels)
    part = task % num_blocks
    start = part * block_channels
    channels = min(block_channels, x.shape[2] - start)
    width = VECTOR_BYTES // x.itemsize
    return Block(task // num_blocks, 0, 0, 0, part, start, channels, -(-channels // width))


@numba.njit
def at(block: Block, t: int, ahead: int, steps: int) -> Block:
    """The same channels at other steps."""
    return Block(block.b, t, ahead, steps, block.part, block.start, block.channels, block.vectors)


@numba.njit
def padded_channels(block_channels: int, x: np.ndarray) -> int:
    """Channels of a block in whole vectors."""
    width = VECTOR_BYTES // x.itemsize
    return -(-block_channels // width) * width


@contextmanager
def walk(lanes: Lanes, block: Any, *ahead: Any) -> Iterator[tuple[tuple[Index, Index, Index], Index, Index, ir.Value]]:
    """Emit loops over the steps of a block and, in the order of memory, its vectors.

    Yields the place in arrays [B, L, E], the step and the vector within the block, and the mask of the channels.
    The same place of the next chunk is fetched into the cache for the arrays `ahead`.
    """
    with lanes.loop(block.steps) as i, lanes.loop(block.vectors) as v:
        channel = v * lanes.width
        for array in ahead:
            array[block.b, block.ahead + i, block.start + channel].prefetch()
        yield (block.b, block.t + i, block.start + channel), i, v, lanes.mask(block.channels - channel)
