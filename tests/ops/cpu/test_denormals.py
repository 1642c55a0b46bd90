"""Numbers below the smallest normal one: the kernels take them as zero, and leave the thread's mode as it was."""

import platform

import pytest
import torch

from slotssm.ops import causal_convolve, selective_scan
from slotssm.ops.attention import multi_head_attention

SMALLEST = torch.finfo(torch.float32).tiny

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="the mode is that of x86 processors"
)


def scan(x):
    dt, A = torch.full_like(x, 0.5), -torch.ones(x.shape[2], 4)
    state = torch.ones(x.shape[0], x.shape[1], 4)
    return selective_scan(x, dt, A, state, state)


def convolve(x):
    channels = x.shape[2]
    return causal_convolve(x, torch.zeros(len(x), channels, 4), torch.ones(channels, 4), torch.zeros(channels))[0]


def attention(x):
    rows = x.reshape(-1, 6, 24)  # enough rows of few queries for the kernel
    return multi_head_attention(rows, torch.cat([rows, rows], 2), 2)


OPERATIONS = pytest.mark.parametrize("operation", [scan, convolve, attention])


def inputs():
    return torch.rand(6, 40, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()


def keeps_denormals():
    return bool(torch.tensor([SMALLEST / 2]).mul(1.0).ne(0))


@OPERATIONS
def test_tiny_gradients_are_zero_rather_than_slow(operation):
    x = inputs()
    y = operation(x)
    # a thousandth of the smallest normal number; what the kernel sums up stays below it
    y.backward(torch.full_like(y, SMALLEST / 1000))
    assert torch.equal(x.grad, torch.zeros_like(x))


@OPERATIONS
def test_small_normal_gradients_are_kept(operation):
    x, scale = inputs(), 2.0**10 * SMALLEST
    y = operation(x)
    (expected,) = torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True)
    (found,) = torch.autograd.grad(y, x, torch.full_like(y, scale))
    torch.testing.assert_close(found / scale, expected, rtol=1e-3, atol=1e-2 * float(expected.abs().max()))


@OPERATIONS
@pytest.mark.parametrize("flushes", [False, True])
def test_the_callers_mode_is_left_as_it_was(operation, flushes):
    try:
        assert torch.set_flush_denormal(flushes)
        operation(inputs()).sum().backward()
        assert keeps_denormals() is not flushes
    finally:
        torch.set_flush_denormal(False)
