"""Kernels of the causal depthwise convolution with SiLU, forward and backward, for a range of tasks.

Each chunk of steps is copied into a buffer that stays in the cache, after the last steps of the previous chunk. From
there on, nothing depends on the memory layout of the inputs.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from slotssm.ops.cpu.channel_blocks import at_steps, channel_block, loop_over_vectors, padded_channels
from slotssm.ops.cpu.codegen.intrinsics import aligned_zeros, flush_denormals, restore_mode, vector_intrinsic
from slotssm.ops.cpu.codegen.simd import Index, Register, VectorBuilder
from slotssm.ops.cpu.codegen.vector_functions import sigmoid, silu_gradient

CHUNK_STEPS = 64


class Buffers(NamedTuple):
    """Buffers of a task, each [steps or taps, channels of a block, padded to whole vectors].

    Attributes:
        history: inputs of the chunk, after those of the taps - 1 steps before it.
        grad_preactivation: gradients of the outputs before SiLU, for the same steps.
        weight: [taps, channels], the newest step last.
        bias: [1, channels].
        grad_weight: gradient of `weight`.
        grad_bias: gradient of `bias`.
    """

    history: np.ndarray
    grad_preactivation: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    grad_weight: np.ndarray
    grad_bias: np.ndarray


# --- vector code ------------------------------------------------------------------------------------------


@vector_intrinsic
def append_inputs(builder: VectorBuilder, x: Any, buffers: Any, taps: Index, block: Any) -> None:
    """Copy the inputs of a chunk into `history`, after those of the previous steps."""
    with loop_over_vectors(builder, block, x) as (position, i, v, mask):
        buffers.history[taps - 1 + i, v * builder.width].store(x[position].load(mask))


def _preactivation(builder: VectorBuilder, buffers: Any, taps: Index, i: Index, channel: Index) -> Any:
    """Output of step i before SiLU."""
    total = Register(builder, buffers.bias[0, channel].load())
    with builder.loop(taps) as w:
        total.set(buffers.history[i + w, channel].load().multiply_add(buffers.weight[w, channel].load(), total.get()))
    return total.get()


@vector_intrinsic
def convolve(builder: VectorBuilder, buffers: Any, taps: Index, block: Any, y: Any) -> None:
    """Write the outputs of a chunk."""
    with loop_over_vectors(builder, block, y) as (position, i, v, mask):
        total = _preactivation(builder, buffers, taps, i, v * builder.width)
        y[position].store(total * sigmoid(total), mask)


@vector_intrinsic
def output_gradients(builder: VectorBuilder, buffers: Any, taps: Index, block: Any, grad_y: Any) -> None:
    """Fill `grad_preactivation` from the gradient of the outputs, and add to the gradients of weight and bias."""
    with loop_over_vectors(builder, block, grad_y) as (position, i, v, mask):
        total = _preactivation(builder, buffers, taps, i, v * builder.width)
        gate = sigmoid(total)
        grad = grad_y[position].load(mask) * silu_gradient(total, gate)
        buffers.grad_preactivation[taps - 1 + i, v * builder.width].store(grad)
        to_bias = buffers.grad_bias[0, v * builder.width]
        to_bias.store(to_bias.load() + grad)
        with builder.loop(taps) as w:
            to_weight = buffers.grad_weight[w, v * builder.width]
            to_weight.store(grad.multiply_add(buffers.history[i + w, v * builder.width].load(), to_weight.load()))


@vector_intrinsic
def write_input_gradients(builder: VectorBuilder, buffers: Any, taps: Index, block: Any, grad_history: Any) -> None:
    """Write the gradient of the inputs; each input has a part in as many outputs as there are taps."""
    with loop_over_vectors(builder, block, grad_history) as (position, i, v, mask):
        total = Register(builder, 0.0)
        with builder.loop(taps) as w:
            grad = buffers.grad_preactivation[taps - 1 + i - w, v * builder.width].load()
            total.set(grad.multiply_add(buffers.weight[w, v * builder.width].load(), total.get()))
        grad_history[position].store(total.get(), mask)


@vector_intrinsic
def keep_last_steps(builder: VectorBuilder, buffer: Any, taps: Index, block: Any) -> None:
    """Move the last taps - 1 steps of a chunk to the beginning of the buffer, before those of the next chunk."""
    with builder.loop(taps - 1) as w, builder.loop(block.vectors) as v:
        buffer[w, v * builder.width].store(buffer[block.steps + w, v * builder.width].load())


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
    """Forward pass of tasks `first` to `last`.

    x and y are [B, L, E], past [B, taps - 1, E], weight [taps, E] and bias [1, E].
    """
    mode = flush_denormals()
    num_steps, taps = x.shape[1], weight.shape[0]
    buffers = _buffers(block_channels, taps, x)
    for task in range(first, last):
        block = channel_block(task, block_channels, x)
        b, start, stop = block.b, block.start, block.start + block.channels
        buffers.weight[:, : block.channels] = weight[:, start:stop]
        buffers.bias[:, : block.channels] = bias[:, start:stop]
        buffers.history[: taps - 1, : block.channels] = past[b, :, start:stop]
        for t in range(0, num_steps, CHUNK_STEPS):
            block = at_steps(block, t, t + CHUNK_STEPS, min(CHUNK_STEPS, num_steps - t))
            append_inputs(x, buffers, taps, block)
            convolve(buffers, taps, block, y)
            keep_last_steps(buffers.history, taps, block)
    restore_mode(mode)


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
    """Backward pass of tasks `first` to `last`.

    grad_history [B, taps - 1 + L, E] is the gradient of the past and x together; grad_weight [B, taps, E] and
    grad_bias [B, 1, E] are the gradients of each sequence, whose sum the caller takes.
    """
    mode = flush_denormals()
    num_steps, taps = x.shape[1], weight.shape[0]
    buffers = _buffers(block_channels, taps, x)
    for task in range(first, last):
        block = channel_block(task, block_channels, x)
        b, start, stop = block.b, block.start, block.start + block.channels
        buffers.weight[:, : block.channels] = weight[:, start:stop]
        buffers.bias[:, : block.channels] = bias[:, start:stop]
        buffers.history[: taps - 1, : block.channels] = past[b, :, start:stop]
        buffers.grad_preactivation[: taps - 1] = 0
        buffers.grad_weight[:] = 0
        buffers.grad_bias[:] = 0
        for t in range(0, num_steps, CHUNK_STEPS):
            block = at_steps(block, t, t + CHUNK_STEPS, min(CHUNK_STEPS, num_steps - t))
            append_inputs(x, buffers, taps, block)
            output_gradients(buffers, taps, block, grad_y)
            write_input_gradients(buffers, taps, block, grad_history)
            keep_last_steps(buffers.history, taps, block)
            keep_last_steps(buffers.grad_preactivation, taps, block)
        # the last inputs also reach steps after the end, which have no outputs
        buffers.grad_preactivation[taps - 1 :] = 0
        for w in range(taps - 1):
            block = at_steps(block, num_steps + w, num_steps + w, 1)
            write_input_gradients(buffers, taps, block, grad_history)
            keep_last_steps(buffers.grad_preactivation, taps, block)
        grad_weight[b, :, start:stop] = buffers.grad_weight[:, : block.channels]
        grad_bias[b, :, start:stop] = buffers.grad_bias[:, : block.channels]
    restore_mode(mode)


@numba.njit
def _buffers(block_channels: int, taps: int, x: np.ndarray) -> Buffers:
    padded = padded_channels(block_channels, x)
    steps = taps - 1 + CHUNK_STEPS
    return Buffers(
        aligned_zeros(steps * padded, x).reshape((steps, padded)),
        aligned_zeros(steps * padded, x).reshape((steps, padded)),
        aligned_zeros(taps * padded, x).reshape((taps, padded)),
        aligned_zeros(padded, x).reshape((1, padded)),
        aligned_zeros(taps * padded, x).reshape((taps, padded)),
        aligned_zeros(padded, x).reshape((1, padded)),
    )
