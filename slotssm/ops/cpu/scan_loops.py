"""The innermost loops of the scan as vector code, with channels in the lanes of SIMD registers.

The forward pass of a block (a chunk of steps of some channels of one sequence) has three phases: `load_chunk` computes
step sizes and driving inputs; `scan_tile` runs `TILE` states of one vector of channels over all steps, with the states
in registers; `store_chunk` applies the gate and writes the outputs. The backward pass has the same phases.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from slotssm.ops.cpu.channel_blocks import loop_over_vectors
from slotssm.ops.cpu.codegen.intrinsics import vector_intrinsic
from slotssm.ops.cpu.codegen.simd import Index, Register, Vector, VectorBuilder
from slotssm.ops.cpu.codegen.vector_functions import LOG2_E, clamp, exp2, sigmoid, silu_gradient, softplus

TILE = 4
"""States of a channel that are advanced together, in registers."""
MAX_FACTOR = 1e19
"""Bound of step sizes and of rates, so that their product, the exponent of a decay, is finite in float32."""


class ScanInputs(NamedTuple):
    """Inputs of the scan; only their last axes must be contiguous.

    Attributes:
        x: [B, L, E].
        dt: [B, L, E].
        A: [N, E], times log2(e).
        B: [B, L, N].
        C: [B, L, N].
        D: [E].
        z: [B, L, E]; read only if gated.
        bias: [E], added to dt.
    """

    x: np.ndarray
    dt: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    z: np.ndarray
    bias: np.ndarray


class ScanGradients(NamedTuple):
    """Gradients of the scan.

    Attributes:
        x: [B, L, E].
        dt: [B, L, E].
        A: [B, N, E], by sequence.
        B: [blocks, B, L, N], by block of channels.
        C: [blocks, B, L, N], by block of channels.
        D: [B, E], by sequence.
        z: [B, L, E]; written only if gated.
        bias: [B, E], by sequence.
    """

    x: np.ndarray
    dt: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    z: np.ndarray
    bias: np.ndarray


class ChunkBuffers(NamedTuple):
    """Buffers for the steps of a chunk, each [vectors, SCAN_CHUNK_STEPS, lanes].

    Attributes:
        delta: step sizes after bias and softplus.
        drive: delta · x.
        y: outputs before the gate.
        grad_y: gradient of `y`.
        grad_drive: gradient of `drive`.
        grad_exponent: gradient of `delta` through the decay, times log(2).
        grad_skip: gradient of D, at step 0.
        grad_bias: gradient of the bias, at step 0.
    """

    delta: np.ndarray
    drive: np.ndarray
    y: np.ndarray
    grad_y: np.ndarray
    grad_drive: np.ndarray
    grad_exponent: np.ndarray
    grad_skip: np.ndarray
    grad_bias: np.ndarray


class StateBuffers(NamedTuple):
    """Buffers for the states of a task, each [N, channels of a block, padded to whole vectors].

    Attributes:
        rates: A times log2(e).
        h: the state.
        grad_h: gradient of `h`.
        grad_rates: gradient of A.
    """

    rates: np.ndarray
    h: np.ndarray
    grad_h: np.ndarray
    grad_rates: np.ndarray


class TileHistory(NamedTuple):
    """What the backward pass recomputes of one tile at all steps of a chunk.

    Attributes:
        h: [SCAN_CHUNK_STEPS + 1, TILE, lanes], the states, beginning with the one before the chunk.
        decay: [SCAN_CHUNK_STEPS, TILE, lanes].
        lane_grads: flat, [steps, 2, tile, lanes], gradients of B and of C in each lane.
        grads: flat, [steps, 2, tile], their sums over the lanes.
    """

    h: np.ndarray
    decay: np.ndarray
    lane_grads: np.ndarray
    grads: np.ndarray


class Output(NamedTuple):
    """The output or its gradient.

    Attributes:
        y: [B, L, E].
    """

    y: np.ndarray


@vector_intrinsic
def load_chunk(builder: VectorBuilder, inputs: Any, chunk: Any, block: Any, with_softplus: ir.Value) -> None:
    """Compute step sizes, driving inputs, and the outputs' part from the skip connection."""
    with loop_over_vectors(builder, block, inputs.x, inputs.dt) as (position, i, v, mask):
        channel = position[2:]
        x, delta = inputs.x[position].load(mask), inputs.dt[position].load(mask) + inputs.bias[channel].load(mask)
        delta = builder.if_else(with_softplus, lambda: softplus(delta), delta)
        chunk.delta[v, i, 0].store(delta)
        chunk.drive[v, i, 0].store(delta * x)
        chunk.y[v, i, 0].store(inputs.D[channel].load(mask) * x)


@vector_intrinsic
def store_chunk(builder: VectorBuilder, inputs: Any, chunk: Any, block: Any, gated: ir.Value, out: Any) -> None:
    """Apply the gate to the outputs and write them."""
    with loop_over_vectors(builder, block, inputs.z, out.y) as (position, i, v, mask):
        z = builder.if_else(gated, lambda: _silu(inputs.z[position].load(mask)), 1.0)
        out.y[position].store(chunk.y[v, i, 0].load() * z, mask)


def _silu(z: Vector) -> Vector:
    return z * sigmoid(z)


def _scan(
    builder: VectorBuilder,
    inputs: Any,
    chunk: Any,
    states: Any,
    history: Any,
    block: Any,
    v: Index,
    n: Index,
    *,
    tile: int,
    keep: bool,
) -> None:
    """Advance states n to n + tile over a chunk, in `states`; with `keep`, write each step to `history` instead."""
    channel, width = v * builder.width, builder.width
    rate = [clamp(states.rates[n + k, channel].load(), MAX_FACTOR) for k in range(tile)]
    h = [Register(builder, states.h[n + k, channel].load()) for k in range(tile)]
    with builder.loop(block.steps) as i:
        delta, drive = chunk.delta[v, i, 0].load(), chunk.drive[v, i, 0].load()
        y = chunk.y[v, i, 0].load()
        bounded = clamp(delta, MAX_FACTOR)
        b, c = inputs.B[block.b, block.t + i, n], inputs.C[block.b, block.t + i, n]
        for k in range(tile):
            decay = exp2(bounded * rate[k])
            if keep:
                (history.h[i, 0, 0] + k * width).store(h[k].get())
                (history.decay[i, 0, 0] + k * width).store(decay)
            h[k].set(decay.multiply_add(h[k].get(), drive * (b + k).broadcast()))
            y = h[k].get().multiply_add((c + k).broadcast(), y)
        chunk.y[v, i, 0].store(y)
    for k in range(tile):
        last = history.h[block.steps, 0, 0] + k * width if keep else states.h[n + k, channel]
        last.store(h[k].get())


def _scan_gradients(
    builder: VectorBuilder,
    inputs: Any,
    chunk: Any,
    states: Any,
    history: Any,
    block: Any,
    v: Index,
    n: Index,
    *,
    tile: int,
) -> None:
    """Run the gradients of states n to n + tile backwards over a chunk whose history was recomputed."""
    channel, width = v * builder.width, builder.width
    # in lanes without a channel, an infinite B or C times zero is NaN
    mask = builder.mask(block.channels - channel)
    rate = [states.rates[n + k, channel].load() for k in range(tile)]
    grad_h = [Register(builder, states.grad_h[n + k, channel].load()) for k in range(tile)]
    grad_rate = [Register(builder, states.grad_rates[n + k, channel].load()) for k in range(tile)]
    with builder.loop(block.steps, backwards=True) as i:
        delta, drive = chunk.delta[v, i, 0].load(), chunk.drive[v, i, 0].load()
        grad_y, grad_drive = chunk.grad_y[v, i, 0].load(), chunk.grad_drive[v, i, 0].load()
        grad_exponent = chunk.grad_exponent[v, i, 0].load()
        b, c = inputs.B[block.b, block.t + i, n], inputs.C[block.b, block.t + i, n]
        for k in range(tile):
            before, after = ((history.h[j, 0, 0] + k * width).load() for j in (i, i + 1))
            grad_b, grad_c = (history.lane_grads[i * (2 * tile * width),] + (j * tile + k) * width for j in (0, 1))
            grad = grad_y.multiply_add((c + k).broadcast(), grad_h[k].get())
            grad_b.store(grad.zero_outside(mask).multiply_add(drive, grad_b.load()))
            grad_c.store(grad_y.multiply_add(after.zero_outside(mask), grad_c.load()))
            grad_drive = grad.multiply_add((b + k).broadcast(), grad_drive)
            grad_h[k].set(grad * (history.decay[i, 0, 0] + k * width).load())
            product = grad_h[k].get() * before
            grad_exponent = product.multiply_add(rate[k], grad_exponent)
            grad_rate[k].set(product.multiply_add(delta, grad_rate[k].get()))
        chunk.grad_drive[v, i, 0].store(grad_drive)
        chunk.grad_exponent[v, i, 0].store(grad_exponent)
    for k in range(tile):
        states.grad_h[n + k, channel].store(grad_h[k].get())
        states.grad_rates[n + k, channel].store(grad_rate[k].get())


@vector_intrinsic
def load_chunk_gradients(
    builder: VectorBuilder, inputs: Any, chunk: Any, block: Any, gated: ir.Value, out: Any
) -> None:
    """Compute the gradient of the outputs before the gate."""
    with loop_over_vectors(builder, block, inputs.z, out.y) as (position, i, v, mask):
        z = builder.if_else(gated, lambda: _silu(inputs.z[position].load(mask)), 1.0)
        chunk.grad_y[v, i, 0].store(out.y[position].load(mask) * z)
        chunk.grad_drive[v, i, 0].store(builder.as_vector(0.0))
        chunk.grad_exponent[v, i, 0].store(builder.as_vector(0.0))


@vector_intrinsic
def store_chunk_gradients(
    builder: VectorBuilder,
    inputs: Any,
    chunk: Any,
    gradients: Any,
    block: Any,
    with_softplus: ir.Value,
    gated: ir.Value,
    out: Any,
) -> None:
    """Write the gradients of x, dt and z, and add to those of the bias and D."""
    with loop_over_vectors(builder, block, gradients.x, gradients.dt, gradients.z) as (position, i, v, mask):
        channel, sums = position[2:], (v, 0, 0)
        x, skip = inputs.x[position].load(mask), inputs.D[channel].load(mask)
        grad_y, grad_drive = chunk.grad_y[v, i, 0].load(), chunk.grad_drive[v, i, 0].load()
        gradients.x[position].store(grad_drive.multiply_add(chunk.delta[v, i, 0].load(), skip * grad_y), mask)
        size = inputs.dt[position].load(mask) + inputs.bias[channel].load(mask)
        slope = builder.if_else(
            with_softplus, lambda: builder.as_vector(20.0).where_less(size, 1.0, sigmoid(size)), 1.0
        )
        grad_dt = grad_drive.multiply_add(x, chunk.grad_exponent[v, i, 0].load() * (1 / LOG2_E)) * slope
        gradients.dt[position].store(grad_dt, mask)
        chunk.grad_bias[sums].store(chunk.grad_bias[sums].load() + grad_dt)
        chunk.grad_skip[sums].store(grad_y.multiply_add(x, chunk.grad_skip[sums].load()))
        with builder.if_then(gated):
            z = inputs.z[position].load(mask)
            slope = silu_gradient(z, sigmoid(z))
            gradients.z[position].store(out.y[position].load(mask) * chunk.y[v, i, 0].load() * slope, mask)


def _sum_lanes(builder: VectorBuilder, history: Any, gradients: Any, block: Any, n: Index, *, tile: int) -> None:
    """Sum the gradients of B and C for states n to n + tile over the lanes, and write them."""
    width, vectors = builder.width, block.steps * (2 * tile)
    with builder.loop((vectors + (width - 1)) // width) as group:
        first = history.lane_grads[group * width**2,]
        history.grads[group * width,].store(builder.lane_sums([(first + i * width).load() for i in range(width)]))
    with builder.loop(block.steps) as i:
        for which, gradient in enumerate((gradients.B, gradients.C)):
            for k in range(0, tile, width):
                total = history.grads[i * (2 * tile) + which * tile + k,].load()
                gradient[block.part, block.b, block.t + i, n + k].store(total, builder.mask(tile - k))


@vector_intrinsic
def load_states(builder: VectorBuilder, padded: Any, plain: Any, block: Any) -> None:
    """Copy the channels of a block from an array [N, E] into a padded one."""
    with _loop_over_states(builder, padded, block) as (n, channel, mask):
        padded[n, channel].store(plain[n, block.start + channel].load(mask))


@vector_intrinsic
def store_states(builder: VectorBuilder, padded: Any, plain: Any, block: Any) -> None:
    """Copy the channels of a block from a padded array into an array [N, E]."""
    with _loop_over_states(builder, padded, block) as (n, channel, mask):
        plain[n, block.start + channel].store(padded[n, channel].load(), mask)


@contextmanager
def _loop_over_states(builder: VectorBuilder, padded: Any, block: Any) -> Iterator[tuple[Index, Index, ir.Value]]:
    with builder.loop(padded.length) as n, builder.loop(block.vectors) as v:
        channel = v * builder.width
        yield n, channel, builder.mask(block.channels - channel)


scan_tile, scan_state = (vector_intrinsic(_scan, tile=tile, keep=False) for tile in (TILE, 1))
recompute_tile, recompute_state = (vector_intrinsic(_scan, tile=tile, keep=True) for tile in (TILE, 1))
differentiate_tile, differentiate_state = (vector_intrinsic(_scan_gradients, tile=tile) for tile in (TILE, 1))
sum_tile_lanes, sum_state_lanes = (vector_intrinsic(_sum_lanes, tile=tile) for tile in (TILE, 1))
