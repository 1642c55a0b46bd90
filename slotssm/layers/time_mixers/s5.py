"""S5: one time-invariant diagonal complex state space model over all channels."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor, nn

from slotssm.layers.inputs import check_input, check_sizes, check_state
from slotssm.layers.time_mixers.step_sizes import TimeInvariantConfig, draw_step_sizes
from slotssm.ops.diagonal import diagonal_scan
from slotssm.registry import register_time_mixer


class S5State(NamedTuple):
    """State of an S5 block between two calls.

    Attributes:
        ssm: [B, N / 2] complex state of the recurrence, one of each conjugate pair.
    """

    ssm: Tensor


class S5Config(TimeInvariantConfig):
    """Time mixer: one S5 block, a state space model over all channels, whose weights all slots share."""

    kind: Literal["s5"] = "s5"


@register_time_mixer("s5", S5Config)
class S5(nn.Module):
    """The S5 block (Smith et al. 2023, arXiv 2208.04933; its authors' `s5/ssm.py` and `s5/layers.py`).

    One system for all channels, x' = Λ x + B u, y = C x + D u, under zero-order hold with a step size for each
    state: h_t = exp(Λ Δ) h_{t-1} + (exp(Λ Δ) - 1) / Λ B u_t and y_t = 2 Re(C h_t) + D u_t, where each state
    stands for a conjugate pair. GELU and a gate σ(W y) follow.

    Initial values as in the authors' code with one block: Λ and the basis of B and C are the eigenvalues and
    eigenvectors of HiPPO-N. Three differences: the normal distributions are not truncated, GELU is exact, and the real
    part of Λ is always kept below `MAX_REAL` (their option `clip_eigs`), so that the state stays bounded over any
    number of steps.

    Args:
        d_model: width D of input and output.
        d_state: state size N, N / 2 conjugate pairs.
        dt_min: lower end of the initial step sizes, drawn log-uniformly.
        dt_max: upper end.
    """

    MAX_REAL = -1e-4

    def __init__(self, d_model: int, d_state: int = 64, dt_min: float = 1e-3, dt_max: float = 1e-1) -> None:
        super().__init__()
        check_sizes(self, d_model=d_model, d_state=d_state)
        self.d_model, self.d_state = d_model, d_state
        eigenvalues, basis = hippo_normal(d_state)
        self.Lambda_re = nn.Parameter(eigenvalues.real.clone())
        self.Lambda_im = nn.Parameter(eigenvalues.imag.clone())
        # complex numbers as pairs of real ones, since not all optimisers and file formats support them
        scale = d_state**-0.5
        B = basis.mH @ (scale * torch.randn(d_state, d_model)).to(basis.dtype)
        C = scale * torch.complex(torch.randn(d_model, d_state), torch.randn(d_model, d_state)) @ basis
        self.B, self.C = nn.Parameter(torch.view_as_real(B)), nn.Parameter(torch.view_as_real(C))
        self.D = nn.Parameter(torch.randn(d_model))
        self.log_step = nn.Parameter(torch.log(draw_step_sizes(d_state // 2, dt_min, dt_max)))
        self.gate = nn.Linear(d_model, d_model)

    def initial_state(self, batch_size: int) -> S5State:
        """The initial state: zeros."""
        return S5State(self._system()[0].new_zeros(batch_size, self.d_state // 2))

    def forward(
        self, u: Float[Tensor, "B L D"], state: S5State | None = None
    ) -> tuple[Float[Tensor, "B L D"], S5State]:
        """Process a sequence in parallel, continuing from `state`; returns the outputs and the new state.

        Raises:
            InputError: `u` has the wrong shape, width or dtype, or the state is of another batch.
        """
        check_input(self, u, "B, L", self.d_model)
        check_state(self, state, len(u))
        if state is None:
            state = self.initial_state(u.shape[0])
        log_decay, B = self._system()
        # each channel of the scan is one state, and the output is the state itself
        one = torch.ones_like(log_decay)[:, None]
        h, last = diagonal_scan(_complex_map(u, B), log_decay[:, None], one, one, state.ssm[..., None])
        return self._write(h, u), S5State(last[..., 0])

    def step(self, u: Float[Tensor, "B D"], state: S5State) -> tuple[Float[Tensor, "B D"], S5State]:
        """Process one step; returns the output and the new state; errors as in `forward`."""
        check_input(self, u, "B", self.d_model)
        check_state(self, state, len(u))
        log_decay, B = self._system()
        h = torch.exp(log_decay) * state.ssm + _complex_map(u, B)
        return self._write(h, u), S5State(h)

    def _system(self) -> tuple[Tensor, Tensor]:
        """Λ Δ [N / 2] and the input map of the zero-order hold [N / 2, D], complex and never below complex64."""
        dtype = torch.promote_types(self.D.dtype, torch.float32)
        eigenvalues = torch.complex(self.Lambda_re.to(dtype).clamp(max=self.MAX_REAL), self.Lambda_im.to(dtype))
        log_decay = torch.exp(self.log_step.to(dtype)) * eigenvalues
        # exp - 1 would lose all digits for a small Λ Δ
        hold = torch.expm1(log_decay) / eigenvalues
        return log_decay, hold[:, None] * torch.view_as_complex(self.B.to(dtype))

    def _write(self, h: Tensor, u: Tensor) -> Tensor:
        """Outputs of the states, skip connection and the gated activation."""
        # 2 Re(C h) as one real product
        real, imaginary = self.C.to(h.real.dtype).unbind(-1)
        C = torch.stack([2 * real, -2 * imaginary], -1)
        y = F.linear(torch.view_as_real(h).flatten(-2), C.flatten(-2)).to(u.dtype)
        y = F.gelu(y + self.D * u)
        return y * torch.sigmoid(self.gate(y))


def hippo_normal(size: int) -> tuple[Complex[Tensor, " pairs"], Complex[Tensor, "size pairs"]]:
    """Eigenvalues with positive imaginary part, and their eigenvectors, of HiPPO-N, the normal part of HiPPO-LegS.

    HiPPO-N is -1/2 on the diagonal plus a skew-symmetric matrix of ±sqrt((2n + 1)(2k + 1)) / 2, the sign positive
    above the diagonal; the other half of its eigenvalues are the conjugates.
    """
    root = torch.sqrt(2 * torch.arange(size, dtype=torch.float64) + 1)
    product = torch.outer(root, root) / 2
    frequencies, vectors = torch.linalg.eigh(-1j * (product.triu(1) - product.tril(-1)))
    eigenvalues = torch.complex(torch.full_like(frequencies, -0.5), frequencies)
    return eigenvalues[size // 2 :].to(torch.complex64), vectors[:, size // 2 :].to(torch.complex64)


def _complex_map(u: Tensor, B: Tensor) -> Tensor:
    """B u, complex, computed as one real product, to which autocast applies as to any linear map."""
    pairs = F.linear(u.to(B.real.dtype), rearrange(torch.view_as_real(B), "n d two -> (n two) d"))
    return torch.view_as_complex(pairs.to(B.real.dtype).unflatten(-1, (-1, 2)))
