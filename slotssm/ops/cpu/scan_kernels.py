"""The scan in numba, forward and backward, for a range of (sequence, block of channels) tasks.

Time is walked in chunks. No array of size B·L·E·N exists: the forward pass stores the state at the start of every
chunk, and the backward pass recomputes the steps of a chunk into buffers that stay in the cache. softplus, bias, D
and the gate are applied on the way into and out of a chunk. Kernels are serial and release the GIL; `fused_scan` runs
them in threads, which is safe after a fork and from several threads at once.
"""

import numba
import numpy as np

from slotssm.ops.blocks import at, block_of, padded_channels
from slotssm.ops.bridge import aligned
from slotssm.ops.lanes import VECTOR_BYTES
from slotssm.ops.scan_loops import (
    TILE,
    Output,
    Record,
    Rows,
    ScanGradients,
    ScanInputs,
    States,
    add_up_one,
    add_up_tile,
    advance_one,
    advance_tile,
    enter,
    enter_backward,
    give,
    leave,
    leave_backward,
    record_one,
    record_tile,
    retreat_one,
    retreat_tile,
    take,
)
from slotssm.ops.sizes import SCAN_CHUNK_STEPS


def forward(
    first: int,
    last: int,
    block_channels: int,
    softplus: bool,
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
    """Tasks `first` to `last` of the forward pass.

    Inputs as in `ScanInputs`; initial and final are [B, N, E], y [B, L, E], stored [B, chunks + 1, N, E],
    whose last row is left alone.
    """
    inputs, out = ScanInputs(x, dt, A, B, C, D, z, bias), Output(y)
    num_steps, num_states = x.shape[1], A.shape[0]
    rows, states, record = _buffers(block_channels, num_states, x)
    for task in range(first, last):
        block = block_of(task, block_channels, x)
        b, start, stop = block.b, block.start, block.start + block.channels
        states.rates[:, : block.channels] = A[:, start:stop]
        states.h[:, : block.channels] = initial[b, :, start:stop]
        for chunk in range(-(-num_steps // SCAN_CHUNK_STEPS)):
            t = chunk * SCAN_CHUNK_STEPS
            block = at(block, t, t + SCAN_CHUNK_STEPS, min(SCAN_CHUNK_STEPS, num_steps - t))
            give(states.h, stored[b, chunk], block)
            enter(inputs, rows, block, softplus)
            for v in range(block.vectors):
                n = 0
                while n + TILE <= num_states:
                    advance_tile(inputs, rows, states, record, block, v, n)
                    n += TILE
                while n < num_states:
                    advance_one(inputs, rows, states, record, block, v, n)
                    n += 1
            leave(inputs, rows, block, gated, out)
        final[b, :, start:stop] = states.h[:, : block.channels]


def backward(
    first: int,
    last: int,
    block_channels: int,
    softplus: bool,
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
    """Tasks `first` to `last` of the backward pass.

    Inputs as in `ScanInputs`, stored as in `forward`, gradients as in `ScanGradients`; grad_state [B, N, E]
    holds the gradient of the last state and receives that of the first.
    """
    inputs, out = ScanInputs(x, dt, A, B, C, D, z, bias), Output(grad_y)
    gradients = ScanGradients(grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias)
    num_steps, num_states = x.shape[1], A.shape[0]
    rows, states, record = _buffers(block_channels, num_states, x)
    width = rows.delta.shape[2]
    for task in range(first, last):
        block = block_of(task, block_channels, x)
        b, start, stop = block.b, block.start, block.start + block.channels
        states.rates[:, : block.channels] = A[:, start:stop]
        states.grad_h[:, : block.channels] = grad_state[b, :, start:stop]
        states.grad_rates[:] = 0
        rows.grad_skip[:] = 0
        rows.grad_bias[:] = 0
        for chunk in range(-(-num_steps // SCAN_CHUNK_STEPS) - 1, -1, -1):
            t = chunk * SCAN_CHUNK_STEPS
            block = at(block, t, t - SCAN_CHUNK_STEPS, min(SCAN_CHUNK_STEPS, num_steps - t))
            take(states.h, stored[b, chunk], block)
            enter(inputs, rows, block, softplus)
            enter_backward(inputs, rows, block, gated, out)
            n = 0
            while n < num_states:
                tile = TILE if n + TILE <= num_states else 1
                groups = -(-2 * block.steps * tile // width)
                record.sums[: groups * width * width] = 0
                for v in range(block.vectors):
                    if tile == TILE:
                        record_tile(inputs, rows, states, record, block, v, n)
                        retreat_tile(inputs, rows, states, record, block, v, n)
                    else:
                        record_one(inputs, rows, states, record, block, v, n)
                        retreat_one(inputs, rows, states, record, block, v, n)
                if tile == TILE:
                    add_up_tile(record, gradients, block, n)
                else:
                    add_up_one(record, gradients, block, n)
                n += tile
            leave_backward(inputs, rows, gradients, block, softplus, gated, out)
        for e in range(start, stop):
            v, lane = (e - start) // width, (e - start) % width
            grad_D[b, e] = rows.grad_skip[v, 0, lane]
            grad_bias[b, e] = rows.grad_bias[v, 0, lane]
        grad_A[b, :, start:stop] = states.grad_rates[:, : block.channels]
        grad_state[b, :, start:stop] = states.grad_h[:, : block.channels]


@numba.njit
def _buffers(block_channels: int, num_states: int, x: np.ndarray) -> tuple[Rows, States, Record]:
    width = VECTOR_BYTES // x.itemsize
    vectors = padded_channels(block_channels, x) // width
    rows = aligned(8 * vectors * SCAN_CHUNK_STEPS * width, x).reshape((8, vectors, SCAN_CHUNK_STEPS, width))
    states = aligned(4 * num_states * vectors * width, x).reshape((4, num_states, vectors * width))
    tile = TILE * width
    record = Record(
        aligned((SCAN_CHUNK_STEPS + 1) * tile, x).reshape((SCAN_CHUNK_STEPS + 1, TILE, width)),
        aligned(SCAN_CHUNK_STEPS * tile, x).reshape((SCAN_CHUNK_STEPS, TILE, width)),
        aligned(2 * SCAN_CHUNK_STEPS * tile + width**2, x),
        aligned(2 * SCAN_CHUNK_STEPS * TILE + width, x),
    )
    return (
        Rows(rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7]),
        States(states[0], states[1], states[2], states[3]),
        record,
    )
