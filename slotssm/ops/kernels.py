"""The recurrence in numba, forward and backward, for a range of (sequence, channel block) tasks.

One pass over time; the innermost loop runs over channels, which lie contiguous, so that it becomes vector
code for any state size N; each such loop touches few enough arrays for the compiler's alias checks. No array
of size B·L·E·N exists: the forward pass stores the state every `CHUNK_STEPS` steps, and the backward pass
recomputes the steps between. Kernels are serial and release the GIL; `fused` runs them in threads, which is
safe after a fork and from several threads at once.
"""

from typing import Any

import numba
import numpy as np
from numba.extending import overload

CHUNK_STEPS = 32
"""Steps between two stored states."""
BLOCK_CHANNELS = 64
"""Widest block of channels: the recomputed states of a chunk stay in the second-level cache."""

LOG2_E = 1.4426950408889634

_OPTIONS = {"cache": True, "nogil": True, "fastmath": True, "error_model": "numpy"}


def exp2(u: Any) -> Any:
    """2**u; compiled to a polynomial in float32, which becomes vector code."""
    return np.exp2(u)


@overload(exp2, inline="always")
def _exp2_overload(u: Any) -> Any:
    if u == numba.float32:

        def exp2_float32(u: Any) -> Any:
            # split into integer and fraction in [-½, ½]; the fraction by a polynomial (relative error below 3e-7)
            u = min(max(u, np.float32(-126.0)), np.float32(126.0))
            whole = np.floor(u + np.float32(0.5))
            f = u - whole
            p = np.float32(1.535336188319500e-4)
            p = p * f + np.float32(1.339887440266574e-3)
            p = p * f + np.float32(9.618437357674640e-3)
            p = p * f + np.float32(5.550332471162809e-2)
            p = p * f + np.float32(2.402264791363012e-1)
            p = p * f + np.float32(6.931472028550421e-1)
            p = p * f + np.float32(1.0)
            scale = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
            # below 2**-126 the result is zero, not the smallest normal number
            return p * scale if u > np.float32(-126.0) else np.float32(0.0)

        return exp2_float32

    def exp2_float64(u: Any) -> Any:
        return np.exp2(u)

    return exp2_float64


@numba.njit(**_OPTIONS)
def forward(
    first: int,
    last: int,
    num_blocks: int,
    x: np.ndarray,
    delta: np.ndarray,
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    initial: np.ndarray,
    y: np.ndarray,
    stored: np.ndarray,
    final: np.ndarray,
) -> None:
    """Tasks `first` to `last` of the forward pass.

    Shapes: x, delta, y [B, L, E]; A [N, E] times log2(e); B, C [B, L, N]; initial, final [B, N, E];
    stored [B, chunks, N, E].
    """
    num_steps, num_channels = x.shape[1], x.shape[2]
    num_states = A.shape[0]
    total = np.empty(BLOCK_CHANNELS, x.dtype)
    drive = np.empty(BLOCK_CHANNELS, x.dtype)
    for task in range(first, last):
        b, block = task // num_blocks, task % num_blocks
        start, stop = _block(block, num_blocks, num_channels)
        rates = A[:, start:stop].copy()
        h = initial[b, :, start:stop].copy()
        for t in range(num_steps):
            if t % CHUNK_STEPS == 0:
                stored[b, t // CHUNK_STEPS, :, start:stop] = h
            time_step, inputs, outputs = delta[b, t, start:stop], x[b, t, start:stop], y[b, t, start:stop]
            for e in range(stop - start):
                drive[e] = time_step[e] * inputs[e]
                total[e] = 0
            for n in range(num_states):
                b_n, c_n = B[b, t, n], C[b, t, n]
                for e in range(stop - start):
                    value = exp2(time_step[e] * rates[n, e]) * h[n, e] + drive[e] * b_n
                    h[n, e] = value
                    total[e] += value * c_n
            for e in range(stop - start):
                outputs[e] = total[e]
        final[b, :, start:stop] = h


@numba.njit(**_OPTIONS)
def backward(
    first: int,
    last: int,
    num_blocks: int,
    x: np.ndarray,
    delta: np.ndarray,
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    stored: np.ndarray,
    grad_y: np.ndarray,
    grad_state: np.ndarray,
    grad_x: np.ndarray,
    grad_delta: np.ndarray,
    grad_A: np.ndarray,
    grad_B: np.ndarray,
    grad_C: np.ndarray,
) -> None:
    """Tasks `first` to `last` of the backward pass.

    Shapes as in `forward`; grad_state [B, N, E] holds the gradient of the last state and receives that of
    the first; grad_A [B, N, E] is by sequence and with respect to log2(e)·A·ln 2 = A; grad_B and
    grad_C [blocks, B, L, N] are by block.
    """
    num_steps, num_channels = x.shape[1], x.shape[2]
    num_states = A.shape[0]
    drive = np.empty(BLOCK_CHANNELS, x.dtype)
    grad_drive = np.empty(BLOCK_CHANNELS, x.dtype)
    grad_rate = np.empty(BLOCK_CHANNELS, x.dtype)
    grad_exponent = np.empty(BLOCK_CHANNELS, x.dtype)
    ln_2 = x.dtype.type(1 / LOG2_E)
    for task in range(first, last):
        b, block = task // num_blocks, task % num_blocks
        start, stop = _block(block, num_blocks, num_channels)
        width = stop - start
        rates = A[:, start:stop].copy()
        grad_h = grad_state[b, :, start:stop].copy()
        grad_rates = np.zeros((num_states, width), x.dtype)
        h = np.empty((CHUNK_STEPS + 1, num_states, width), x.dtype)
        decay = np.empty((CHUNK_STEPS, num_states, width), x.dtype)
        for chunk in range(stored.shape[1] - 1, -1, -1):
            chunk_start = chunk * CHUNK_STEPS
            chunk_len = min(CHUNK_STEPS, num_steps - chunk_start)
            h[0] = stored[b, chunk, :, start:stop]
            for i in range(chunk_len):
                t = chunk_start + i
                time_step, inputs = delta[b, t, start:stop], x[b, t, start:stop]
                before, after, decays = h[i], h[i + 1], decay[i]
                for e in range(width):
                    drive[e] = time_step[e] * inputs[e]
                for n in range(num_states):
                    b_n = B[b, t, n]
                    for e in range(width):
                        decays[n, e] = exp2(time_step[e] * rates[n, e])
                    for e in range(width):
                        after[n, e] = decays[n, e] * before[n, e] + drive[e] * b_n
            for i in range(chunk_len - 1, -1, -1):
                t = chunk_start + i
                time_step, inputs, grad_out = delta[b, t, start:stop], x[b, t, start:stop], grad_y[b, t, start:stop]
                grad_in, grad_step = grad_x[b, t, start:stop], grad_delta[b, t, start:stop]
                before, after, decays = h[i], h[i + 1], decay[i]
                for e in range(width):
                    drive[e] = time_step[e] * inputs[e]
                    grad_drive[e] = 0
                    grad_rate[e] = 0
                for n in range(num_states):
                    b_n, c_n = B[b, t, n], C[b, t, n]
                    sum_b = x.dtype.type(0)
                    sum_c = x.dtype.type(0)
                    for e in range(width):
                        g = grad_h[n, e] + c_n * grad_out[e]
                        grad_h[n, e] = g
                        sum_b += g * drive[e]
                        sum_c += grad_out[e] * after[n, e]
                    for e in range(width):
                        grad_drive[e] += grad_h[n, e] * b_n
                    for e in range(width):
                        g = grad_h[n, e] * decays[n, e]
                        grad_h[n, e] = g
                        grad_exponent[e] = g * before[n, e]
                    for e in range(width):
                        grad_rate[e] += grad_exponent[e] * rates[n, e]
                        grad_rates[n, e] += grad_exponent[e] * time_step[e]
                    grad_B[block, b, t, n] = sum_b
                    grad_C[block, b, t, n] = sum_c
                for e in range(width):
                    grad_in[e] = grad_drive[e] * time_step[e]
                    grad_step[e] = grad_drive[e] * inputs[e] + grad_rate[e] * ln_2
        grad_A[b, :, start:stop] = grad_rates
        grad_state[b, :, start:stop] = grad_h


@numba.njit(**_OPTIONS)
def _block(block: int, num_blocks: int, num_channels: int) -> tuple[int, int]:
    """First and last channel of a block; widths are multiples of 16 but for the last."""
    width = min(BLOCK_CHANNELS, -(-num_channels // (16 * num_blocks)) * 16)
    start = min(block * width, num_channels)
    return start, min(start + width, num_channels)
