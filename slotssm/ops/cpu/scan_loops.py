"""The innermost loops of the scan, as vector code: channels lie in the lanes of a register.

A block is a chunk of steps of some channels of one sequence. On the way in, its step sizes and driving inputs
are computed; then a tile of `TILE` states of one vector of channels at a time runs over all steps with its
states in registers; on the way out, outputs are gated and written. The way back is alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from slotssm.ops.blocks import walk
from slotssm.ops.bridge import vectorised
from slotssm.ops.lanes import LOG2_E, Index, Lanes, Register, Vector

TILE = 4
"""States of one vector of channels that run together, in registers."""
MOST = 1e19
"""Bound of step sizes and rates in the exponent, whose product is then finite in float32."""


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


class Rows(NamedTuple):
    """What a chunk holds for every step, each [vectors, CHUNK_STEPS, lanes].

    Attributes:
        delta: step sizes after bias and softplus.
        drive: delta · x.
        y: outputs before the gate.
        grad_y: their gradient.
        grad_drive: gradient of `drive`.
        grad_exponent: gradient of delta through the decay, in units of log 2.
        grad_skip: gradient of D, in the first row.
        grad_bias: gradient of the bias, in the first row.
    """

    delta: np.ndarray
    drive: np.ndarray
    y: np.ndarray
    grad_y: np.ndarray
    grad_drive: np.ndarray
    grad_exponent: np.ndarray
    grad_skip: np.ndarray
    grad_bias: np.ndarray


class States(NamedTuple):
    """What a task holds for every state, each [N, channels of a block, padded to whole vectors].

    Attributes:
        rates: A times log2(e).
        h: the state.
        grad_h: its gradient.
        grad_rates: gradient of A.
    """

    rates: np.ndarray
    h: np.ndarray
    grad_h: np.ndarray
    grad_rates: np.ndarray


class Record(NamedTuple):
    """Every step of one tile over one chunk, for the backward pass.

    Attributes:
        h: [CHUNK_STEPS + 1, TILE, lanes] the states, the one before the chunk included.
        decay: [CHUNK_STEPS, TILE, lanes].
        sums: flat, [steps, 2, tile, lanes] gradients of B and of C, before the sum over the lanes.
        totals: flat, [steps, 2, tile] after it.
    """

    h: np.ndarray
    decay: np.ndarray
    sums: np.ndarray
    totals: np.ndarray


class Output(NamedTuple):
    """The output or its gradient.

    Attributes:
        y: [B, L, E].
    """

    y: np.ndarray


def _enter(lanes: Lanes, inputs: Any, rows: Any, block: Any, softplus: ir.Value) -> None:
    """Step sizes, driving inputs and the skip connection's part of the outputs."""
    with walk(lanes, block, inputs.x, inputs.dt) as (place, i, v, mask):
        channel = place[2:]
        x, delta = inputs.x[place].load(mask), inputs.dt[place].load(mask) + inputs.bias[channel].load(mask)
        delta = lanes.either(softplus, lambda: lanes.softplus(delta), delta)
        rows.delta[v, i, 0].store(delta)
        rows.drive[v, i, 0].store(delta * x)
        rows.y[v, i, 0].store(inputs.D[channel].load(mask) * x)


def _leave(lanes: Lanes, inputs: Any, rows: Any, block: Any, gated: ir.Value, out: Any) -> None:
    """Gate the outputs and write them."""
    with walk(lanes, block, inputs.z, out.y) as (place, i, v, mask):
        z = lanes.either(gated, lambda: _silu(lanes, inputs.z[place].load(mask)), 1.0)
        out.y[place].store(rows.y[v, i, 0].load() * z, mask)


def _silu(lanes: Lanes, z: Vector) -> Vector:
    return z * lanes.sigmoid(z)


def _advance(
    lanes: Lanes,
    inputs: Any,
    rows: Any,
    states: Any,
    record: Any,
    block: Any,
    v: Index,
    n: Index,
    *,
    tile: int,
    keep: bool,
) -> None:
    """Run states n to n + tile over a chunk; with `keep` into `record` instead of on into `states`."""
    channel, width = v * lanes.width, lanes.width
    rate = [lanes.clamped(states.rates[n + k, channel].load(), MOST) for k in range(tile)]
    h = [Register(lanes, states.h[n + k, channel].load()) for k in range(tile)]
    with lanes.loop(block.steps) as i:
        delta, drive = rows.delta[v, i, 0].load(), rows.drive[v, i, 0].load()
        y = rows.y[v, i, 0].load()
        bounded = lanes.clamped(delta, MOST)
        b, c = inputs.B[block.b, block.t + i, n], inputs.C[block.b, block.t + i, n]
        for k in range(tile):
            decay = lanes.exp2(bounded * rate[k])
            if keep:
                (record.h[i, 0, 0] + k * width).store(h[k].get())
                (record.decay[i, 0, 0] + k * width).store(decay)
            h[k].set(decay.times_plus(h[k].get(), drive * (b + k).spread()))
            y = h[k].get().times_plus((c + k).spread(), y)
        rows.y[v, i, 0].store(y)
    for k in range(tile):
        last = record.h[block.steps, 0, 0] + k * width if keep else states.h[n + k, channel]
        last.store(h[k].get())


def _retreat(
    lanes: Lanes, inputs: Any, rows: Any, states: Any, record: Any, block: Any, v: Index, n: Index, *, tile: int
) -> None:
    """Run the gradients of states n to n + tile backwards over a recorded chunk."""
    channel, width = v * lanes.width, lanes.width
    # an infinite B or C makes NaN of the zeros in lanes without a channel
    mask = lanes.mask(block.channels - channel)
    rate = [states.rates[n + k, channel].load() for k in range(tile)]
    grad_h = [Register(lanes, states.grad_h[n + k, channel].load()) for k in range(tile)]
    grad_rate = [Register(lanes, states.grad_rates[n + k, channel].load()) for k in range(tile)]
    with lanes.loop(block.steps, backwards=True) as i:
        delta, drive = rows.delta[v, i, 0].load(), rows.drive[v, i, 0].load()
        grad_y, grad_drive = rows.grad_y[v, i, 0].load(), rows.grad_drive[v, i, 0].load()
        grad_exponent = rows.grad_exponent[v, i, 0].load()
        b, c = inputs.B[block.b, block.t + i, n], inputs.C[block.b, block.t + i, n]
        for k in range(tile):
            before, after = ((record.h[j, 0, 0] + k * width).load() for j in (i, i + 1))
            grad_b, grad_c = (record.sums[i * (2 * tile * width),] + (j * tile + k) * width for j in (0, 1))
            grad = grad_y.times_plus((c + k).spread(), grad_h[k].get())
            grad_b.store(grad.within(mask).times_plus(drive, grad_b.load()))
            grad_c.store(grad_y.times_plus(after.within(mask), grad_c.load()))
            grad_drive = grad.times_plus((b + k).spread(), grad_drive)
            grad_h[k].set(grad * (record.decay[i, 0, 0] + k * width).load())
            product = grad_h[k].get() * before
            grad_exponent = product.times_plus(rate[k], grad_exponent)
            grad_rate[k].set(product.times_plus(delta, grad_rate[k].get()))
        rows.grad_drive[v, i, 0].store(grad_drive)
        rows.grad_exponent[v, i, 0].store(grad_exponent)
    for k in range(tile):
        states.grad_h[n + k, channel].store(grad_h[k].get())
        states.grad_rates[n + k, channel].store(grad_rate[k].get())


def _enter_backward(lanes: Lanes, inputs: Any, rows: Any, block: Any, gated: ir.Value, out: Any) -> None:
    """Gradient of the outputs before the gate."""
    with walk(lanes, block, inputs.z, out.y) as (place, i, v, mask):
        z = lanes.either(gated, lambda: _silu(lanes, inputs.z[place].load(mask)), 1.0)
        rows.grad_y[v, i, 0].store(out.y[place].load(mask) * z)
        rows.grad_drive[v, i, 0].store(lanes.of(0.0))
        rows.grad_exponent[v, i, 0].store(lanes.of(0.0))


def _leave_backward(
    lanes: Lanes, inputs: Any, rows: Any, gradients: Any, block: Any, softplus: ir.Value, gated: ir.Value, out: Any
) -> None:
    """Gradients of x, dt and z of a chunk, and its parts of those of the bias and D."""
    with walk(lanes, block, gradients.x, gradients.dt, gradients.z) as (place, i, v, mask):
        channel, sums = place[2:], (v, 0, 0)
        x, skip = inputs.x[place].load(mask), inputs.D[channel].load(mask)
        grad_y, grad_drive = rows.grad_y[v, i, 0].load(), rows.grad_drive[v, i, 0].load()
        gradients.x[place].store(grad_drive.times_plus(rows.delta[v, i, 0].load(), skip * grad_y), mask)
        size = inputs.dt[place].load(mask) + inputs.bias[channel].load(mask)
        slope = lanes.either(softplus, lambda: lanes.of(20.0).where_less(size, 1.0, lanes.sigmoid(size)), 1.0)
        grad_dt = grad_drive.times_plus(x, rows.grad_exponent[v, i, 0].load() * (1 / LOG2_E)) * slope
        gradients.dt[place].store(grad_dt, mask)
        rows.grad_bias[sums].store(rows.grad_bias[sums].load() + grad_dt)
        rows.grad_skip[sums].store(grad_y.times_plus(x, rows.grad_skip[sums].load()))
        with lanes.only_if(gated):
            z = inputs.z[place].load(mask)
            share = lanes.sigmoid(z)
            slope = share * (z * (1.0 - share) + 1.0)
            gradients.z[place].store(out.y[place].load(mask) * rows.y[v, i, 0].load() * slope, mask)


def _add_up(lanes: Lanes, record: Any, gradients: Any, block: Any, n: Index, *, tile: int) -> None:
    """Sum the lanes of the gradients of B and C of states n to n + tile, and write them."""
    width, vectors = lanes.width, block.steps * (2 * tile)
    with lanes.loop((vectors + (width - 1)) // width) as group:
        first = record.sums[group * width**2,]
        record.totals[group * width,].store(lanes.sums([(first + i * width).load() for i in range(width)]))
    with lanes.loop(block.steps) as i:
        for which, gradient in enumerate((gradients.B, gradients.C)):
            for k in range(0, tile, width):
                total = record.totals[i * (2 * tile) + which * tile + k,].load()
                gradient[block.part, block.b, block.t + i, n + k].store(total, lanes.mask(tile - k))


def _take(lanes: Lanes, padded: Any, plain: Any, block: Any) -> None:
    """Copy the channels of a block from an array [N, E] into a padded one."""
    with _each(lanes, padded, block) as (n, channel, mask):
        padded[n, channel].store(plain[n, block.start + channel].load(mask))


def _give(lanes: Lanes, padded: Any, plain: Any, block: Any) -> None:
    """Copy the channels of a block from a padded array into an array [N, E]."""
    with _each(lanes, padded, block) as (n, channel, mask):
        plain[n, block.start + channel].store(padded[n, channel].load(), mask)


@contextmanager
def _each(lanes: Lanes, padded: Any, block: Any) -> Iterator[tuple[Index, Index, ir.Value]]:
    with lanes.loop(padded.length) as n, lanes.loop(block.vectors) as v:
        channel = v * lanes.width
        yield n, channel, lanes.mask(block.channels - channel)


enter, leave = vectorised(_enter), vectorised(_leave)
enter_backward, leave_backward = vectorised(_enter_backward), vectorised(_leave_backward)
advance_tile, advance_one = (vectorised(_advance, tile=tile, keep=False) for tile in (TILE, 1))
record_tile, record_one = (vectorised(_advance, tile=tile, keep=True) for tile in (TILE, 1))
retreat_tile, retreat_one = (vectorised(_retreat, tile=tile) for tile in (TILE, 1))
add_up_tile, add_up_one = (vectorised(_add_up, tile=tile) for tile in (TILE, 1))
take, give = vectorised(_take), vectorised(_give)
