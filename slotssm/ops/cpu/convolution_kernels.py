"""Causal depthwise convolution and SiLU in numba, forward and backward, for a range of tasks.

A chunk of steps is copied behind the last steps of the chunk before into a buffer that stays in the cache; from
there on, nothing depends on how the inputs lie in memory.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from slotssm.ops.blocks import at, block_of, padded_channels, walk
from slotssm.ops.bridge import aligned, vectorised
from slotssm.ops.lanes import Index, Lanes, Register

CHUNK_STEPS = 64


class Buffers(NamedTuple):
    """What a task holds, each [steps or taps, channels of a block, padded to whole vectors].

    Attributes:
        history: inputs of the chunk after those of the steps before it.
        slopes: gradients of the outputs before SiLU, likewise.
        weight: one row for each tap, the newest step last.
        bias: [1, channels].
        grad_weight: gradient of `weight`.
        grad_bias: gradient of `bias`.
    """

    history: np.ndarray
    slopes: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    grad_weight: np.ndarray
    grad_bias: np.ndarray


# --- vector code ------------------------------------------------------------------------------------------


def _read(lanes: Lanes, x: Any, buffers: Any, taps: Index, block: Any) -> None:
    """Copy the inputs of a chunk behind those before it."""
    with walk(lanes, block, x) as (place, i, v, mask):
        buffers.history[taps - 1 + i, v * lanes.width].store(x[place].load(mask))


def _sum(lanes: Lanes, buffers: Any, taps: Index, i: Index, channel: Index) -> Any:
    """Output of step i before SiLU."""
    total = Register(lanes, buffers.bias[0, channel].load())
    with lanes.loop(taps) as w:
        total.set(buffers.history[i + w, channel].load().times_plus(buffers.weight[w, channel].load(), total.get()))
    return total.get()


def _convolve(lanes: Lanes, buffers: Any, taps: Index, block: Any, y: Any) -> None:
    """Write the outputs of a chunk."""
    with walk(lanes, block, y) as (place, i, v, mask):
        total = _sum(lanes, buffers, taps, i, v * lanes.width)
        y[place].store(total * lanes.sigmoid(total), mask)


def _differentiate(lanes: Lanes, buffers: Any, taps: Index, block: Any, grad_y: Any) -> None:
    """Fill `slopes` from the gradient of the outputs, and add to the gradients of weight and bias."""
    with walk(lanes, block, grad_y) as (place, i, v, mask):
        total = _sum(lanes, buffers, taps, i, v * lanes.width)
        share = lanes.sigmoid(total)
        slope = grad_y[place].load(mask) * (share * (total * (1.0 - share) + 1.0))
        buffers.slopes[taps - 1 + i, v * lanes.width].store(slope)
        to_bias = buffers.grad_bias[0, v * lanes.width]
        to_bias.store(to_bias.load() + slope)
        with lanes.loop(taps) as w:
            to_weight = buffers.grad_weight[w, v * lanes.width]
            to_weight.store(slope.times_plus(buffers.history[i + w, v * lanes.width].load(), to_weight.load()))


def _spread(lanes: Lanes, buffers: Any, taps: Index, block: Any, grad_history: Any) -> None:
    """Write the gradient of the inputs, from the slopes of all outputs that an input reached."""
    with walk(lanes, block, grad_history) as (place, i, v, mask):
        total = Register(lanes, 0.0)
        with lanes.loop(taps) as w:
            slope = buffers.slopes[taps - 1 + i - w, v * lanes.width].load()
            total.set(slope.times_plus(buffers.weight[w, v * lanes.width].load(), total.get()))
        grad_history[place].store(total.get(), mask)


def _shift(lanes: Lanes, rows: Any, taps: Index, block: Any) -> None:
    """Move the last steps of a chunk before the next."""
    with lanes.loop(taps - 1) as w, lanes.loop(block.vectors) as v:
        rows[w, v * lanes.width].store(rows[block.steps + w, v * lanes.width].load())


read, convolve, differentiate = vectorised(_read), vectorised(_convolve), vectorised(_differentiate)
spread, shift = vectorised(_spread), vectorised(_shift)


# --- kernels ----------------------------------------------------------------------------------------------


def forward(
    first: int,
    last: int,
    block_channels: int,
    x: np.ndarray,
    past: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    y: np.ndarray,
) -> None:
    """Tasks `first` to `last`: x and y are [B, L, E], past [B, taps - 1, E], weight [taps, E], bias [1, E]."""
    num_steps, taps = x.shape[1], weight.shape[0]
    buffers = _buffers(block_channels, taps, x)
    for task in range(first, last):
        block = block_of(task, block_channels, x)
        b, start, stop = block.b, block.start, block.start + block.channels
        buffers.weight[:, : block.channels] = weight[:, start:stop]
        buffers.bias[:, : block.channels] = bias[:, start:stop]
        buffers.history[: taps - 1, : block.channels] = past[b, :, start:stop]
        for t in range(0, num_steps, CHUNK_STEPS):
            block = at(block, t, t + CHUNK_STEPS, min(CHUNK_STEPS, num_steps - t))
            read(x, buffers, taps, block)
            convolve(buffers, taps, block, y)
            shift(buffers.history, taps, block)


def backward(
    first: int,
    last: int,
    block_channels: int,
    x: np.ndarray,
    past: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    grad_y: np.ndarray,
    grad_history: np.ndarray,
    grad_weight: np.ndarray,
    grad_bias: np.ndarray,
) -> None:
    """Tasks `first` to `last` of the way back.

    grad_history [B, taps - 1 + L, E] is the gradient of the past and x, grad_weight [B, taps, E] and
    grad_bias [B, 1, E] are by sequence.
    """
    num_steps, taps = x.shape[1], weight.shape[0]
    buffers = _buffers(block_channels, taps, x)
    for task in range(first, last):
        block = block_of(task, block_channels, x)
        b, start, stop = block.b, block.start, block.start + block.channels
        buffers.weight[:, : block.channels] = weight[:, start:stop]
        buffers.bias[:, : block.channels] = bias[:, start:stop]
        buffers.history[: taps - 1, : block.channels] = past[b, :, start:stop]
        buffers.slopes[: taps - 1] = 0
        buffers.grad_weight[:] = 0
        buffers.grad_bias[:] = 0
        for t in range(0, num_steps, CHUNK_STEPS):
            block = at(block, t, t + CHUNK_STEPS, min(CHUNK_STEPS, num_steps - t))
            read(x, buffers, taps, block)
            differentiate(buffers, taps, block, grad_y)
            spread(buffers, taps, block, grad_history)
            shift(buffers.history, taps, block)
            shift(buffers.slopes, taps, block)
        # what the last inputs did to outputs that were not asked for
        buffers.slopes[taps - 1 :] = 0
        for w in range(taps - 1):
            block = at(block, num_steps + w, num_steps + w, 1)
            spread(buffers, taps, block, grad_history)
            shift(buffers.slopes, taps, block)
        grad_weight[b, :, start:stop] = buffers.grad_weight[:, : block.channels]
        grad_bias[b, :, start:stop] = buffers.grad_bias[:, : block.channels]


@numba.njit
def _buffers(block_channels: int, taps: int, x: np.ndarray) -> Buffers:
    padded = padded_channels(block_channels, x)
    steps = taps - 1 + CHUNK_STEPS
    return Buffers(
        aligned(steps * padded, x).reshape((steps, padded)),
        aligned(steps * padded, x).reshape((steps, padded)),
        aligned(taps * padded, x).reshape((taps, padded)),
        aligned(padded, x).reshape((1, padded)),
        aligned(taps * padded, x).reshape((taps, padded)),
        aligned(padded, x).reshape((1, padded)),
    )
