import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import cont2discrete

from slotssm.layers import S5
from slotssm.layers.time_mixers.s5 import hippo_normal


def trained_like(block: S5) -> S5:
    """Move every parameter away from its initial value, so that none is left unread unnoticed."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block.double()


def dense_hippo_normal(size: int) -> np.ndarray:
    """HiPPO-LegS plus the rank-one matrix that makes it normal, entry by entry."""
    matrix = np.zeros((size, size))
    for n in range(size):
        for k in range(size):
            legs = -math.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else -(n + 1.0) if n == k else 0.0
            matrix[n, k] = legs + math.sqrt((n + 0.5) * (k + 0.5))
    return matrix


@torch.no_grad()
def test_block_is_the_recurrence_as_it_is_written():
    # with both states of every conjugate pair, and complex numbers throughout
    block = trained_like(S5(6, d_state=8))
    u = torch.randn(2, 60, 6, dtype=torch.float64)
    rate = block.Lambda_re.clamp(max=-1e-4) + 1j * block.Lambda_im
    decay = torch.exp(rate * block.log_step.exp())
    B = ((decay - 1) / rate)[:, None] * torch.view_as_complex(block.B)
    C = torch.view_as_complex(block.C)
    decay, B, C = torch.cat([decay, decay.conj()]), torch.cat([B, B.conj()]), torch.cat([C, C.conj()], 1)
    state, outputs = torch.zeros(2, 8, dtype=torch.complex128), []
    for t in range(60):
        state = decay * state + u[:, t].to(B.dtype) @ B.T
        y = state @ C.T
        assert y.imag.abs().max() < 1e-12
        y = F.gelu(y.real + block.D * u[:, t])
        outputs.append(y * torch.sigmoid(y @ block.gate.weight.T + block.gate.bias))
    torch.testing.assert_close(block(u)[0], torch.stack(outputs, 1), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_first_states_are_those_of_hippo_n_under_scipys_zero_order_hold():
    # one step size for all states, so that the basis can be changed back to the dense real matrix
    block = S5(3, d_state=8, dt_min=0.05, dt_max=0.05)
    basis = hippo_normal(8)[1].numpy()
    # a real B, seen in half of the basis, is twice the real part of the sum over that half
    B = 2 * (basis @ torch.view_as_complex(block.B).numpy()).real
    A, B, *_ = cont2discrete((dense_hippo_normal(8), B, np.eye(8), np.zeros((8, 3))), 0.05, method="zoh")
    u, state = torch.randn(1, 30, 3), np.zeros(8)
    for t in range(30):
        state = A @ state + B @ u[0, t].numpy()
    expected = torch.from_numpy(basis.conj().T @ state).to(torch.complex64)
    torch.testing.assert_close(block(u)[1].ssm[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_basis_diagonalises_hippo_n(size):
    eigenvalues, vectors = (part.numpy() for part in hippo_normal(size))
    assert (eigenvalues.real == -0.5).all()
    assert (eigenvalues.imag > 0).all()
    product = (vectors * eigenvalues) @ vectors.conj().T
    np.testing.assert_allclose(2 * product.real, dense_hippo_normal(size), atol=2e-5 * size)


def test_initial_values_are_those_of_the_paper():
    block = S5(256, d_state=64)
    assert {name: tuple(value.shape) for name, value in block.state_dict().items()} == {
        "Lambda_re": (32,),
        "Lambda_im": (32,),
        "B": (32, 256, 2),
        "C": (256, 32, 2),
        "D": (256,),
        "log_step": (32,),
        "gate.weight": (256, 256),
        "gate.bias": (256,),
    }
    steps = block.log_step.detach() / math.log(10)
    assert -3.001 < steps.min() < -2.6
    assert -1.4 < steps.max() < -0.999
    # the basis is unitary, so that the variance 1 / N of each entry stays; C is complex before it
    assert abs(block.B.square().sum(-1).mean() * 64 - 1) < 0.1
    assert abs(block.C.square().sum(-1).mean() * 64 - 2) < 0.2
    assert abs(block.D.var() - 1) < 0.3


def test_eigenvalues_that_would_grow_are_kept_below_zero():
    block = S5(4, d_state=8)
    torch.nn.init.constant_(block.Lambda_re, 3.0)
    y, state = block(torch.randn(1, 5000, 4))
    assert y.isfinite().all()
    assert state.ssm.abs().max() < 1e3


def test_small_step_sizes_keep_their_digits_in_float32():
    block = S5(4, d_state=8, dt_min=1e-7, dt_max=1e-6)
    u = torch.randn(1, 50, 4)
    state = block(u)[1].ssm
    exact = block.double()(u.double())[1].ssm
    assert (state - exact).abs().max() < 1e-6 * exact.abs().max()
