"""SIMD vectors under the kernels: sums over lanes, transposition, masks and aligned memory."""

import numba
import numpy as np
import pytest

from slotssm.ops.cpu.codegen.intrinsics import aligned_zeros, vector_intrinsic
from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes_are_summed_each_into_its_own(dtype):
    width = VECTOR_BYTES // np.dtype(dtype).itemsize

    def emit(builder, rows, out):
        out[0,].store(builder.lane_sums([(rows[0,] + i * width).load() for i in range(width)]))

    vector = vector_intrinsic(emit)

    @numba.njit
    def run(rows, out):
        vector(rows, out)

    rows = np.random.default_rng(0).integers(-100, 100, (width, width)).astype(dtype)
    out = np.empty(width, dtype)
    run(rows.ravel(), out)
    np.testing.assert_array_equal(out, rows.sum(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_are_transposed(dtype):
    width = VECTOR_BYTES // np.dtype(dtype).itemsize

    def emit(builder, rows, out):
        vectors = builder.transpose([(rows[0,] + i * width).load() for i in range(width)])
        for i, vector in enumerate(vectors):
            (out[0,] + i * width).store(vector)

    vector = vector_intrinsic(emit)

    @numba.njit
    def run(rows, out):
        vector(rows, out)

    rows, out = np.arange(width * width).astype(dtype), np.empty(width * width, dtype)
    run(rows, out)
    np.testing.assert_array_equal(out.reshape(width, width), rows.reshape(width, width).T)


@pytest.mark.parametrize("count", [1, 5, 16, 40])
def test_masked_stores_leave_the_rest_alone(count):
    def emit(builder, source, target, channels):
        with builder.loop((channels + (builder.width - 1)) // builder.width) as v:
            mask = builder.mask(channels - v * builder.width)
            target[v * builder.width,].store(source[v * builder.width,].load(mask), mask)

    vector = vector_intrinsic(emit)

    @numba.njit
    def run(source, target, channels):
        vector(source, target, channels)

    source, target = np.arange(1, 65, dtype=np.float32), np.zeros(64, np.float32)
    run(source, target, count)
    np.testing.assert_array_equal(target, np.where(np.arange(64) < count, source, 0))


def test_aligned_memory_starts_at_a_cache_line():
    for count in (1, 5, 100):
        for dtype in (np.float32, np.float64):
            memory = aligned_zeros(count, np.empty(1, dtype))
            assert memory.shape == (count,)
            assert memory.ctypes.data % 64 == 0
            assert not memory.any()
