"""Kernels of the selective scan, forward and backward, for a range of tasks (blocks of channels of one sequence).

A kernel processes time in chunks. No array of size B·L·E·N exists: the forward pass stores the state at the start of
each chunk, and the backward pass recomputes the steps of a chunk into buffers that stay in the cache. softplus, bias,
D and the gate are applied where a chunk is loaded and stored. Kernels are serial and release the GIL; `scan_operator`
runs them in threads, which is safe after a fork and from several threads at once.
"""

import numba
import numpy as np

from slotssm.ops.cpu.channel_blocks import at_steps, channel_block, padded_channels
from slotssm.ops.cpu.codegen.intrinsics import aligned_zeros, flush_denormals, restore_mode
from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES
from slotssm.ops.cpu.scan_loops import (
    TILE,
    ChunkBuffers,
    Output,
    ScanGradients,
    ScanInputs,
    StateBuffers,
    TileHistory,
    differentiate_state,
    differentiate_tile,
    load_chunk,
    load_chunk_gradients,
    load_states,
    recompute_state,
    recompute_tile,
    scan_state,
    scan_tile,
    store_chunk,
    store_chunk_gradients,
    store_states,
    sum_state_lanes,
    sum_tile_lanes,
)
from slotssm.ops.cpu.tiling import SCAN_CHUNK_STEPS


def forward(
    first: int,
    last: int,
    block_channels: int,
    with_softplus: bool,
    gated: bool,
    x: np.ndarray,
    dt: np.ndarray,
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    D: np.ndarray,
    z: np.ndarray,
    bias: np.ndarray,
    initial: np.ndarray,
    y: np.ndarray,
    stored: np.ndarray,
    final: np.ndarray,
) -> None:
    """Forward pass of tasks `first` to `last`.

    Inputs as in `ScanInputs`; initial and final are [B, N, E], y [B, L, E]. stored [B, chunks + 1, N, E] receives
    the state at the start of each chunk; its last entry is not written.
    """
    mode = flush_denormals()
    inputs, out = ScanInputs(x, dt, A, B, C, D, z, bias), Output(y)
    num_steps, num_states = x.shape[1], A.shape[0]
    chunk_buffers, states, history = _buffers(block_channels, num_states, x)
    for task in range(first, last):
        block = channel_block(task, block_channels, x)
        b, start, stop = block.b, block.start, block.start + block.channels
        states.rates[:, : block.channels] = A[:, start:stop]
        states.h[:, : block.channels] = initial[b, :, start:stop]
        for chunk in range(-(-num_steps // SCAN_CHUNK_STEPS)):
            t = chunk * SCAN_CHUNK_STEPS
            block = at_steps(block, t, t + SCAN_CHUNK_STEPS, min(SCAN_CHUNK_STEPS, num_steps - t))
            store_states(states.h, stored[b, chunk], block)
            load_chunk(inputs, chunk_buffers, block, with_softplus)
            for v in range(block.vectors):
                n = 0
                while n + TILE <= num_states:
                    scan_tile(inputs, chunk_buffers, states, history, block, v, n)
                    n += TILE
                while n < num_states:
                    scan_state(inputs, chunk_buffers, states, history, block, v, n)
                    n += 1
            store_chunk(inputs, chunk_buffers, block, gated, out)
        final[b, :, start:stop] = states.h[:, : block.channels]
    restore_mode(mode)


def backward(
    first: int,
    last: int,
    block_channels: int,
    with_softplus: bool,
    gated: bool,
    x: np.ndarray,
    dt: np.ndarray,
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    D: np.ndarray,
    z: np.ndarray,
    bias: np.ndarray,
    stored: np.ndarray,
    grad_y: np.ndarray,
    grad_state: np.ndarray,
    grad_x: np.ndarray,
    grad_dt: np.ndarray,
    grad_A: np.ndarray,
    grad_B: np.ndarray,
    grad_C: np.ndarray,
    grad_D: np.ndarray,
    grad_z: np.ndarray,
    grad_bias: np.ndarray,
) -> None:
    """Backward pass of tasks `first` to `last`.

    Inputs as in `ScanInputs`, stored as in `forward`, gradients as in `ScanGradients`; grad_state [B, N, E]
    holds the gradient of the last state and receives that of the first.
    """
    mode = flush_denormals()
    inputs, out = ScanInputs(x, dt, A, B, C, D, z, bias), Output(grad_y)
    gradients = ScanGradients(grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias)
    num_steps, num_states = x.shape[1], A.shape[0]
    chunk_buffers, states, history = _buffers(block_channels, num_states, x)
    width = chunk_buffers.delta.shape[2]
    for task in range(first, last):
        block = channel_block(task, block_channels, x)
        b, start, stop = block.b, block.start, block.start + block.channels
        states.rates[:, : block.channels] = A[:, start:stop]
        states.grad_h[:, : block.channels] = grad_state[b, :, start:stop]
        states.grad_rates[:] = 0
        chunk_buffers.grad_skip[:] = 0
        chunk_buffers.grad_bias[:] = 0
        for chunk in range(-(-num_steps // SCAN_CHUNK_STEPS) - 1, -1, -1):
            t = chunk * SCAN_CHUNK_STEPS
            block = at_steps(block, t, t - SCAN_CHUNK_STEPS, min(SCAN_CHUNK_STEPS, num_steps - t))
            load_states(states.h, stored[b, chunk], block)
            load_chunk(inputs, chunk_buffers, block, with_softplus)
            load_chunk_gradients(inputs, chunk_buffers, block, gated, out)
            n = 0
            while n < num_states:
                tile = TILE if n + TILE <= num_states else 1
                groups = -(-2 * block.steps * tile // width)
                history.lane_grads[: groups * width * width] = 0
                for v in range(block.vectors):
                    if tile == TILE:
                        recompute_tile(inputs, chunk_buffers, states, history, block, v, n)
                        differentiate_tile(inputs, chunk_buffers, states, history, block, v, n)
                    else:
                        recompute_state(inputs, chunk_buffers, states, history, block, v, n)
                        differentiate_state(inputs, chunk_buffers, states, history, block, v, n)
                if tile == TILE:
                    sum_tile_lanes(history, gradients, block, n)
                else:
                    sum_state_lanes(history, gradients, block, n)
                n += tile
            store_chunk_gradients(inputs, chunk_buffers, gradients, block, with_softplus, gated, out)
        for e in range(start, stop):
            v, lane = (e - start) // width, (e - start) % width
            grad_D[b, e] = chunk_buffers.grad_skip[v, 0, lane]
            grad_bias[b, e] = chunk_buffers.grad_bias[v, 0, lane]
        grad_A[b, :, start:stop] = states.grad_rates[:, : block.channels]
        grad_state[b, :, start:stop] = states.grad_h[:, : block.channels]
    restore_mode(mode)


@numba.njit
def _buffers(block_channels: int, num_states: int, x: np.ndarray) -> tuple[ChunkBuffers, StateBuffers, TileHistory]:
    width = VECTOR_BYTES // x.itemsize
    vectors = padded_channels(block_channels, x) // width
    c = aligned_zeros(8 * vectors * SCAN_CHUNK_STEPS * width, x).reshape((8, vectors, SCAN_CHUNK_STEPS, width))
    s = aligned_zeros(4 * num_states * vectors * width, x).reshape((4, num_states, vectors * width))
    tile = TILE * width
    history = TileHistory(
        aligned_zeros((SCAN_CHUNK_STEPS + 1) * tile, x).reshape((SCAN_CHUNK_STEPS + 1, TILE, width)),
        aligned_zeros(SCAN_CHUNK_STEPS * tile, x).reshape((SCAN_CHUNK_STEPS, TILE, width)),
        aligned_zeros(2 * SCAN_CHUNK_STEPS * tile + width**2, x),
        aligned_zeros(2 * SCAN_CHUNK_STEPS * TILE + width, x),
    )
    return ChunkBuffers(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]), StateBuffers(s[0], s[1], s[2], s[3]), history
