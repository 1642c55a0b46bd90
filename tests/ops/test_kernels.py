import numba
import numpy as np

from slotssm.ops import kernels


@numba.njit
def powers(u, out):
    for i in range(len(u)):
        out[i] = kernels.exp2(u[i])


def compiled(u: np.ndarray) -> np.ndarray:
    out = np.empty_like(u)
    powers(u, out)
    return out


def test_float32_power_of_two_is_accurate_over_the_whole_range():
    rng = np.random.default_rng(0)
    u = np.concatenate([np.linspace(-125.999, 126, 200_001), rng.uniform(-2, 2, 100_000)]).astype(np.float32)
    exact = np.exp2(u.astype(np.float64))
    assert (np.abs(compiled(u) - exact) / exact).max() < 3e-7


def test_float32_whole_powers_are_exact():
    u = np.arange(-125, 127, dtype=np.float32)
    np.testing.assert_array_equal(compiled(u), np.ldexp(np.float32(1), u.astype(int)))


def test_float32_vanishes_below_the_normal_numbers():
    u = np.array([-126.5, -150, -1e4, -3e38, -np.inf], np.float32)
    np.testing.assert_array_equal(compiled(u), np.zeros(5))


def test_float64_is_numpys():
    u = np.linspace(-1000, 1000, 5001)
    np.testing.assert_allclose(compiled(u), np.exp2(u), rtol=1e-14)


def test_blocks_of_channels_are_a_partition():
    for num_channels in range(1, 700):
        num_blocks = max(1, -(-num_channels // kernels.BLOCK_CHANNELS))
        ranges = [kernels._block(block, num_blocks, num_channels) for block in range(num_blocks)]
        covered = [channel for start, stop in ranges for channel in range(start, stop)]
        assert covered == list(range(num_channels))
        assert max(stop - start for start, stop in ranges) <= kernels.BLOCK_CHANNELS
