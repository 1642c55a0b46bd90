"""The vector arithmetic under the kernels, against numpy in float64."""

import platform
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from slotssm.ops.blocks import block_of
from slotssm.ops.bridge import aligned, vectorised
from slotssm.ops.lanes import VECTOR_BYTES
from slotssm.ops.sizes import tasks_of


def compiled(name):
    """The function of `Lanes` as a function of an array whose length is a multiple of 16."""

    def emit(lanes, u, out, count):
        with lanes.loop(count // lanes.width) as i:
            out[i * lanes.width,].store(getattr(lanes, name)(u[i * lanes.width,].load()))

    vector = vectorised(emit)

    @numba.njit
    def run(u, out):
        vector(u, out, len(u))

    def function(u: np.ndarray) -> np.ndarray:
        padded = np.concatenate([u, np.zeros(-len(u) % 16, u.dtype)])
        out = np.empty_like(padded)
        run(padded, out)
        return out[: len(u)]

    return function


def softplus(x):
    return np.logaddexp(0, x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def exp2():
    return compiled("exp2")


def test_float32_power_of_two_is_accurate_over_the_whole_range(exp2):
    rng = np.random.default_rng(0)
    u = np.concatenate([np.linspace(-125.999, 127.4, 200_001), rng.uniform(-2, 2, 100_000)]).astype(np.float32)
    exact = np.exp2(u.astype(np.float64))
    assert (np.abs(exp2(u) - exact) / exact).max() < 2.5e-7


def test_float64_power_of_two_is_accurate_over_the_whole_range(exp2):
    u = np.linspace(-1021.9, 1023.4, 200_001)
    np.testing.assert_allclose(exp2(u), np.exp2(u), rtol=1e-15)


def test_whole_powers_are_exact(exp2):
    u = np.arange(-126, 128, dtype=np.float32)
    np.testing.assert_array_equal(exp2(u), np.ldexp(np.float32(1), u.astype(int)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_outside_the_range_are_zero_or_infinite(exp2, dtype):
    beyond = np.array([-1e30, -1e6, -1e4, -1e5, 1e4, 1e5, 1e6, 1e30], dtype)
    np.testing.assert_array_equal(exp2(beyond), [0] * 4 + [np.inf] * 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_not_a_number_stays_so(exp2, dtype):
    payloads = np.array([np.nan, -np.nan], dtype)
    assert np.isnan(exp2(payloads)).all()


@pytest.mark.parametrize("function", [np.exp, sigmoid, softplus])
@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 4e-7), (np.float64, 2e-15)])
def test_functions_equal_numpys(function, dtype, error):
    x = np.concatenate([np.linspace(-80, 80, 100_001), np.linspace(-1e-3, 1e-3, 1001)]).astype(dtype)
    expected = function(x.astype(np.float64))
    # above 20, softplus is the identity, as in torch
    if function is softplus:
        expected = np.where(x > 20, x, expected)
    np.testing.assert_allclose(compiled(function.__name__)(x), expected, rtol=error)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes_are_summed_each_into_its_own(dtype):
    width = VECTOR_BYTES // np.dtype(dtype).itemsize

    def emit(lanes, rows, out):
        out[0,].store(lanes.sums([(rows[0,] + i * width).load() for i in range(width)]))

    vector = vectorised(emit)

    @numba.njit
    def run(rows, out):
        vector(rows, out)

    rows = np.random.default_rng(0).integers(-100, 100, (width, width)).astype(dtype)
    out = np.empty(width, dtype)
    run(rows.ravel(), out)
    np.testing.assert_array_equal(out, rows.sum(1))


@pytest.mark.parametrize("count", [1, 5, 16, 40])
def test_masked_stores_leave_the_rest_alone(count):
    def emit(lanes, source, target, channels):
        with lanes.loop((channels + (lanes.width - 1)) // lanes.width) as v:
            mask = lanes.mask(channels - v * lanes.width)
            target[v * lanes.width,].store(source[v * lanes.width,].load(mask), mask)

    vector = vectorised(emit)

    @numba.njit
    def run(source, target, channels):
        vector(source, target, channels)

    source, target = np.arange(1, 65, dtype=np.float32), np.zeros(64, np.float32)
    run(source, target, count)
    np.testing.assert_array_equal(target, np.where(np.arange(64) < count, source, 0))


def test_aligned_memory_starts_at_a_cache_line():
    for count in (1, 5, 100):
        for dtype in (np.float32, np.float64):
            memory = aligned(count, np.empty(1, dtype))
            assert memory.shape == (count,)
            assert memory.ctypes.data % 64 == 0
            assert not memory.any()


@pytest.mark.parametrize("batch", [1, 7, 8, 12])
def test_blocks_of_channels_are_a_partition(batch):
    for num_channels in (*range(1, 300), 512, 1000):
        x = torch.empty(batch, 1, num_channels)
        num_tasks, block_channels = tasks_of(x)
        blocks = [block_of(task, block_channels, x.numpy()) for task in range(num_tasks)]
        for b in range(batch):
            own = [block for block in blocks if block.b == b]
            covered = [block.start + i for block in own for i in range(block.channels)]
            assert covered == list(range(num_channels))
            assert [block.part for block in own] == list(range(len(own)))


def test_an_empty_batch_has_no_tasks():
    assert tasks_of(torch.empty(0, 3, 5))[0] == 0


SCAN_ON_ANOTHER_PROCESSOR = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from scan_cases import random_scan, relative_error
from slotssm.ops import lanes, selective_scan

arguments, found = random_scan(65, channels=21, states=7, dtype=torch.float32), {}
for backend in ("fused", "reference"):
    y, final = selective_scan(**arguments, delta_softplus=True, return_final_state=True, backend=backend)
    gradients = torch.autograd.grad(y.square().sum() + final.sum(), list(arguments.values()))
    found[backend] = [y.detach(), final.detach(), *gradients]
assert max(map(relative_error, found["fused"], found["reference"])) < 1e-5
print(lanes.VECTOR_BYTES)
"""


@pytest.mark.parametrize(("features", "width"), [("+avx,+avx2,+fma", 32), pytest.param("", 16, marks=pytest.mark.slow)])
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="features of another architecture")
def test_narrower_registers_give_the_same_results(features, width, tmp_path, environment):
    settings = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SCAN_ON_ANOTHER_PROCESSOR, str(Path(__file__).parent)]
    done = subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == str(width), done.stderr
