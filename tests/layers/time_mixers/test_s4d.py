import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import cont2discrete

from slotssm.layers import S4D


def trained_like(block: S4D) -> S4D:
    """Move every parameter away from its initial value, so that none is left unread unnoticed."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block.double()


def written(block: S4D, y: np.ndarray, u: torch.Tensor) -> torch.Tensor:
    """From the outputs of the recurrence to those of the block, in the words of the authors' minimal code."""
    y = F.gelu(torch.from_numpy(y) + block.D * u)
    value, gate = block.out_proj(y).chunk(2, -1)
    return value * torch.sigmoid(gate)


@torch.no_grad()
def test_block_is_the_papers_convolution():
    # K_k = 2 Re sum C (exp(ΔA) - 1) / A exp(ΔA)^k, its Vandermonde matrix over the whole sequence
    block = trained_like(S4D(6, d_state=8))
    u = torch.randn(2, 150, 6, dtype=torch.float64)
    A = (-torch.exp(block.log_A_real) + 1j * block.A_imag).numpy()
    step = block.log_dt.exp().numpy()[:, None]
    C = torch.view_as_complex(block.C).numpy() * (np.exp(step * A) - 1) / A
    kernel = 2 * np.einsum("dn,dnl->dl", C, np.exp((step * A)[..., None] * np.arange(150))).real
    y = [[np.convolve(kernel[d], u[b, :, d])[:150] for d in range(6)] for b in range(2)]
    expected = written(block, np.array(y).swapaxes(1, 2), u)
    torch.testing.assert_close(block(u)[0], expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_recurrence_is_scipys_zero_order_hold_of_real_matrices():
    # a complex pair -a ± iw is the real matrix [[-a, -w], [w, -a]], whose states are real and imaginary part
    block = trained_like(S4D(2, d_state=6))
    u = torch.randn(1, 40, 2, dtype=torch.float64)
    y = np.zeros((1, 40, 2))
    for d in range(2):
        A, B, C = np.zeros((6, 6)), np.zeros((6, 1)), np.zeros((1, 6))
        for n in range(3):
            rate, turn = block.log_A_real[d, n].exp().item(), block.A_imag[d, n].item()
            A[2 * n : 2 * n + 2, 2 * n : 2 * n + 2] = [[-rate, -turn], [turn, -rate]]
            B[2 * n], C[0, 2 * n], C[0, 2 * n + 1] = 1, 2 * block.C[d, n, 0], -2 * block.C[d, n, 1]
        A, B, C, _, _ = cont2discrete((A, B, C, np.zeros((1, 1))), block.log_dt[d].exp().item(), method="zoh")
        state = np.zeros(6)
        for t in range(40):
            state = A @ state + B[:, 0] * u[0, t, d].item()
            y[0, t, d] = (C @ state).item()
    torch.testing.assert_close(block(u)[0], written(block, y, u), rtol=1e-10, atol=1e-10)


def test_initial_values_are_s4d_lin():
    block = S4D(512, d_state=8)
    assert {name: tuple(value.shape) for name, value in block.state_dict().items()} == {
        "log_dt": (512,),
        "log_A_real": (512, 4),
        "A_imag": (512, 4),
        "C": (512, 4, 2),
        "D": (512,),
        "out_proj.weight": (1024, 512),
        "out_proj.bias": (1024,),
    }
    torch.testing.assert_close(block.log_A_real.exp(), torch.full((512, 4), 0.5))
    torch.testing.assert_close(block.A_imag.data, math.pi * torch.arange(4.0).expand(512, 4))
    steps = block.log_dt.detach() / math.log(10)
    assert -3.001 < steps.min() < -2.95
    assert -1.05 < steps.max() < -0.999
    # log-uniform: the quarters of the range get the same share
    assert (torch.histc(steps, 4, -3, -1) / 512 - 0.25).abs().max() < 0.08
    # unit variance of the complex C, and of D
    assert abs(block.C.square().sum(-1).mean() - 1) < 0.1
    assert abs(block.D.var() - 1) < 0.2


def test_small_step_sizes_keep_their_digits_in_float32():
    block = S4D(4, d_state=8, dt_min=1e-7, dt_max=1e-6)
    u = torch.randn(1, 50, 4)
    state = block(u)[1].ssm
    exact = block.double()(u.double())[1].ssm
    assert (state - exact).abs().max() < 1e-6 * exact.abs().max()
