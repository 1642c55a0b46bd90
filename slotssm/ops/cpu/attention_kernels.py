"""Kernels of attention with few queries and keys in each of many rows, forward and backward.

As many rows as a vector has lanes are computed together, one head at a time, so that nothing is summed over the lanes:
a head's queries, keys and values are transposed into buffers [entries, lanes] that stay in the cache.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from slotssm.ops.cpu.codegen.intrinsics import aligned_zeros, flush_denormals, restore_mode, vector_intrinsic
from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES, Index, Register, VectorBuilder
from slotssm.ops.cpu.codegen.vector_functions import exp


class Buffers(NamedTuple):
    """Buffers of one head of a group of rows; the entries of a query or key are padded to whole vectors.

    Attributes:
        q: scaled queries, [Q · entries, lanes].
        k: keys, [M · entries, lanes].
        v: values, likewise.
        y: outputs of the queries; in the backward pass their gradients.
        grad_q: gradients of the queries before scaling.
        grad_k: gradients of the keys.
        grad_v: gradients of the values.
        weights: attention of one query, [M, lanes].
        grad_weights: its gradient.
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    y: np.ndarray
    grad_q: np.ndarray
    grad_k: np.ndarray
    grad_v: np.ndarray
    weights: np.ndarray
    grad_weights: np.ndarray


class Sizes(NamedTuple):
    """Sizes of one head.

    Attributes:
        queries: number Q of queries.
        keys: number M of keys.
        entries: entries of a query of one head.
        padded: the same, rounded up to whole vectors.
    """

    queries: int
    keys: int
    entries: int
    padded: int


# --- vector code ------------------------------------------------------------------------------------------


@vector_intrinsic
def load_head(builder: VectorBuilder, x: Any, row: Index, start: Index, count: Index, sizes: Any, buffer: Any) -> None:
    """Transpose entries `start` and following of x[row ...], of all lanes, into a buffer.

    Lanes beyond the last row repeat that row.
    """
    lanes = [(row + lane).minimum(x.length - 1) for lane in range(builder.width)]
    with builder.loop(count) as n, builder.loop(sizes.padded // builder.width) as tile:
        first = tile * builder.width
        mask = builder.mask(sizes.entries - first)
        vectors = [x[lane, n, start + first].load(mask) for lane in lanes]
        for i, vector in enumerate(builder.transpose(vectors)):
            buffer[n * sizes.padded + first + i, 0].store(vector)


@vector_intrinsic
def store_head(builder: VectorBuilder, buffer: Any, row: Index, start: Index, count: Index, sizes: Any, x: Any) -> None:
    """Transpose a buffer back into x[row ...]; lanes beyond the last row are dropped."""
    with builder.loop(count) as n, builder.loop(sizes.padded // builder.width) as tile:
        first = tile * builder.width
        mask = builder.mask(sizes.entries - first)
        vectors = [buffer[n * sizes.padded + first + i, 0].load() for i in range(builder.width)]
        for lane, vector in enumerate(builder.transpose(vectors)):
            with builder.if_then((row + lane).is_less(x.length)):
                x[row + lane, n, start + first].store(vector, mask)


@vector_intrinsic
def scale_queries(builder: VectorBuilder, buffer: Any, scale: Any, count: Index) -> None:
    """Multiply the first `count` vectors of a buffer by the number in `scale`."""
    factor = scale[0,].broadcast()
    with builder.loop(count) as i:
        buffer[i, 0].store(buffer[i, 0].load() * factor)


def _attend(builder: VectorBuilder, buffers: Any, sizes: Any, q: Index) -> None:
    """Fill `weights` with the attention of a query."""
    most = Register(builder, -3e38)
    with builder.loop(sizes.keys) as m:
        logit = Register(builder, 0.0)
        with builder.loop(sizes.entries) as d:
            query = buffers.q[q * sizes.padded + d, 0].load()
            logit.set(query.multiply_add(buffers.k[m * sizes.padded + d, 0].load(), logit.get()))
        buffers.weights[m, 0].store(logit.get())
        # NaN is kept in the weights themselves
        most.set(most.get().where_less(logit.get(), logit.get(), most.get()))
    total = Register(builder, 0.0)
    with builder.loop(sizes.keys) as m:
        weight = exp(buffers.weights[m, 0].load() - most.get())
        buffers.weights[m, 0].store(weight)
        total.set(total.get() + weight)
    share = 1.0 / total.get()
    with builder.loop(sizes.keys) as m:
        buffers.weights[m, 0].store(buffers.weights[m, 0].load() * share)


def _weighted_sum(builder: VectorBuilder, weights: Any, values: Any, sizes: Any, d: Index) -> Any:
    """Entry d of the values of all keys, summed with weights."""
    total = Register(builder, 0.0)
    with builder.loop(sizes.keys) as m:
        total.set(weights[m, 0].load().multiply_add(values[m * sizes.padded + d, 0].load(), total.get()))
    return total.get()


@vector_intrinsic
def attend(builder: VectorBuilder, buffers: Any, sizes: Any) -> None:
    """Fill `y` from `q`, `k` and `v`."""
    with builder.loop(sizes.queries) as q:
        _attend(builder, buffers, sizes, q)
        with builder.loop(sizes.entries) as d:
            buffers.y[q * sizes.padded + d, 0].store(_weighted_sum(builder, buffers.weights, buffers.v, sizes, d))


@vector_intrinsic
def attend_backward(builder: VectorBuilder, buffers: Any, sizes: Any) -> None:
    """Fill `grad_q`, and add to `grad_k` and `grad_v`, from `q`, `k`, `v` and the gradients in `y`."""
    with builder.loop(sizes.queries) as q:
        _attend(builder, buffers, sizes, q)
        mean = Register(builder, 0.0)
        with builder.loop(sizes.keys) as m:
            grad = Register(builder, 0.0)
            weight = buffers.weights[m, 0].load()
            with builder.loop(sizes.entries) as d:
                grad_y = buffers.y[q * sizes.padded + d, 0].load()
                grad.set(grad_y.multiply_add(buffers.v[m * sizes.padded + d, 0].load(), grad.get()))
                to_value = buffers.grad_v[m * sizes.padded + d, 0]
                to_value.store(weight.multiply_add(grad_y, to_value.load()))
            buffers.grad_weights[m, 0].store(grad.get())
            mean.set(weight.multiply_add(grad.get(), mean.get()))
        with builder.loop(sizes.keys) as m:
            grad_logit = buffers.weights[m, 0].load() * (buffers.grad_weights[m, 0].load() - mean.get())
            buffers.grad_weights[m, 0].store(grad_logit)
            with builder.loop(sizes.entries) as d:
                to_key = buffers.grad_k[m * sizes.padded + d, 0]
                to_key.store(grad_logit.multiply_add(buffers.q[q * sizes.padded + d, 0].load(), to_key.load()))
        with builder.loop(sizes.entries) as d:
            total = _weighted_sum(builder, buffers.grad_weights, buffers.k, sizes, d)
            buffers.grad_q[q * sizes.padded + d, 0].store(total)


# --- kernels ----------------------------------------------------------------------------------------------


def forward(
    first: int,
    last: int,
    num_heads: int,
    scale: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    y: np.ndarray,
) -> None:
    """Forward pass of groups of rows `first` to `last`.

    q and y are [rows, Q, D], k and v [rows, M, D]; `scale` [1] is the factor of the logits.
    """
    mode = flush_denormals()
    lanes, sizes = VECTOR_BYTES // q.itemsize, _sizes(num_heads, q, k)
    buffers = _buffers(sizes, q, 0)
    for group in range(first, last):
        row = group * lanes
        for head in range(num_heads):
            start = head * sizes.entries
            load_head(q, row, start, sizes.queries, sizes, buffers.q)
            load_head(k, row, start, sizes.keys, sizes, buffers.k)
            load_head(v, row, start, sizes.keys, sizes, buffers.v)
            scale_queries(buffers.q, scale, sizes.queries * sizes.padded)
            attend(buffers, sizes)
            store_head(buffers.y, row, start, sizes.queries, sizes, y)
    restore_mode(mode)


def backward(
    first: int,
    last: int,
    num_heads: int,
    scale: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    grad_y: np.ndarray,
    grad_q: np.ndarray,
    grad_k: np.ndarray,
    grad_v: np.ndarray,
) -> None:
    """Backward pass of groups of rows `first` to `last`; the gradients have the shapes of q, k and v."""
    mode = flush_denormals()
    lanes, sizes = VECTOR_BYTES // q.itemsize, _sizes(num_heads, q, k)
    buffers = _buffers(sizes, q, 1)
    for group in range(first, last):
        row = group * lanes
        for head in range(num_heads):
            start = head * sizes.entries
            load_head(q, row, start, sizes.queries, sizes, buffers.q)
            load_head(k, row, start, sizes.keys, sizes, buffers.k)
            load_head(v, row, start, sizes.keys, sizes, buffers.v)
            load_head(grad_y, row, start, sizes.queries, sizes, buffers.y)
            scale_queries(buffers.q, scale, sizes.queries * sizes.padded)
            buffers.grad_k[:] = 0
            buffers.grad_v[:] = 0
            attend_backward(buffers, sizes)
            scale_queries(buffers.grad_q, scale, sizes.queries * sizes.padded)
            store_head(buffers.grad_q, row, start, sizes.queries, sizes, grad_q)
            store_head(buffers.grad_k, row, start, sizes.keys, sizes, grad_k)
            store_head(buffers.grad_v, row, start, sizes.keys, sizes, grad_v)
    restore_mode(mode)


@numba.njit
def _sizes(num_heads: int, q: np.ndarray, k: np.ndarray) -> Sizes:
    lanes, entries = VECTOR_BYTES // q.itemsize, q.shape[2] // num_heads
    return Sizes(q.shape[1], k.shape[1], entries, -(-entries // lanes) * lanes)


@numba.njit
def _buffers(sizes: Sizes, q: np.ndarray, backward: int) -> Buffers:
    """Buffers; those of the gradients only if `backward` is 1."""
    queries, keys = sizes.queries * sizes.padded, sizes.keys * sizes.padded
    return Buffers(
        _lanes(queries, q),
        _lanes(keys, q),
        _lanes(keys, q),
        _lanes(queries, q),
        _lanes(backward * queries, q),
        _lanes(backward * keys, q),
        _lanes(backward * keys, q),
        _lanes(sizes.keys, q),
        _lanes(backward * sizes.keys, q),
    )


@numba.njit
def _lanes(count: int, like: np.ndarray) -> np.ndarray:
    lanes = VECTOR_BYTES // like.itemsize
    return aligned_zeros(count * lanes, like).reshape((count, lanes))
