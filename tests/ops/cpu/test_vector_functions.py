"""Elementary functions of SIMD vectors, against numpy in float64."""

import numba
import numpy as np
import pytest

from slotssm.ops.cpu.codegen import vector_functions
from slotssm.ops.cpu.codegen.intrinsics import vector_intrinsic


def compiled(name):
    """A function of vectors as a function of arrays."""

    def emit(builder, u, out, count):
        with builder.loop(count // builder.width) as i:
            out[i * builder.width,].store(getattr(vector_functions, name)(u[i * builder.width,].load()))

    vector = vector_intrinsic(emit)

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
