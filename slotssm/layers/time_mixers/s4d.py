"""S4D: a time-invariant diagonal complex state space model for each channel."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.inputs import check_input, check_sizes, check_state
from slotssm.layers.time_mixers.step_sizes import TimeInvariantConfig, draw_step_sizes
from slotssm.ops.diagonal import diagonal_scan, diagonal_step
from slotssm.registry import register_time_mixer


class S4DState(NamedTuple):
    """State of an S4D block between two calls.

    Attributes:
        ssm: [B, D, N / 2] complex state of the recurrence, one of each conjugate pair.
    """

    ssm: Tensor


class S4DConfig(TimeInvariantConfig):
    """Time mixer: one S4D block, a state space model for each channel, whose weights all slots share."""

    kind: Literal["s4d"] = "s4d"


@register_time_mixer("s4d", S4DConfig)
class S4D(nn.Module):
    """The minimal S4D block (Gu et al. 2022, arXiv 2206.11893; its authors' `models/s4/s4d.py`).

    Each channel is x' = A x + B u, y = C x + D u with B = 1, under zero-order hold: h_t = exp(Δ A) h_{t-1} +
    (exp(Δ A) - 1) / A u_t and y_t = 2 Re(C h_t) + D u_t, where each state stands for a conjugate pair. GELU, a
    linear map and a gated linear unit follow. Initial values are S4D-Lin, A_n = -1/2 + iπn.

    Args:
        d_model: width D of input and output.
        d_state: state size N of each channel, N / 2 conjugate pairs.
        dt_min: lower end of the initial step sizes, drawn log-uniformly.
        dt_max: upper end.
    """

    def __init__(self, d_model: int, d_state: int = 64, dt_min: float = 1e-3, dt_max: float = 1e-1) -> None:
        super().__init__()
        check_sizes(self, d_model=d_model, d_state=d_state)
        self.d_model, self.d_state = d_model, d_state
        pairs = d_state // 2
        self.log_dt = nn.Parameter(torch.log(draw_step_sizes(d_model, dt_min, dt_max)))
        # the real part is -exp(log_A_real), which keeps the recurrence stable
        self.log_A_real = nn.Parameter(torch.full((d_model, pairs), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(pairs).float().repeat(d_model, 1))
        # complex numbers as pairs of real ones, since not all optimisers and file formats support them
        self.C = nn.Parameter(torch.view_as_real(torch.randn(d_model, pairs, dtype=torch.complex64)))
        self.D = nn.Parameter(torch.randn(d_model))
        self.out_proj = nn.Linear(d_model, 2 * d_model)

    def initial_state(self, batch_size: int) -> S4DState:
        """The initial state: zeros."""
        return S4DState(self._system()[0].new_zeros(batch_size, self.d_model, self.d_state // 2))

    def forward(
        self, u: Float[Tensor, "B L D"], state: S4DState | None = None
    ) -> tuple[Float[Tensor, "B L D"], S4DState]:
        """Process a sequence in parallel, continuing from `state`; returns the outputs and the new state.

        Raises:
            InputError: `u` has the wrong shape, width or dtype, or the state is of another batch.
        """
        check_input(self, u, "B, L", self.d_model)
        check_state(self, state, len(u))
        if state is None:
            state = self.initial_state(u.shape[0])
        y, ssm = diagonal_scan(u, *self._system(), initial_state=state.ssm)
        return self._write(y, u), S4DState(ssm)

    def step(self, u: Float[Tensor, "B D"], state: S4DState) -> tuple[Float[Tensor, "B D"], S4DState]:
        """Process one step; returns the output and the new state; errors as in `forward`."""
        check_input(self, u, "B", self.d_model)
        check_state(self, state, len(u))
        y, ssm = diagonal_step(state.ssm, u, *self._system())
        return self._write(y, u), S4DState(ssm)

    def _system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Δ A, the input map of the zero-order hold, and 2 C, each complex [D, N / 2] and never below complex64."""
        dtype = torch.promote_types(self.D.dtype, torch.float32)
        A = torch.complex(-torch.exp(self.log_A_real.to(dtype)), self.A_imag.to(dtype))
        log_decay = torch.exp(self.log_dt.to(dtype))[:, None] * A
        # exp - 1 would lose all digits for a small Δ A
        return log_decay, torch.expm1(log_decay) / A, 2 * torch.view_as_complex(self.C.to(dtype))

    def _write(self, y: Tensor, u: Tensor) -> Tensor:
        """Skip connection, activation and the gated map to the output."""
        return F.glu(self.out_proj(F.gelu(y + self.D * u)), dim=-1)
