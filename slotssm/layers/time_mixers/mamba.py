"""The Mamba (v1) block: parameter names, shapes and initial values of `mamba_ssm.Mamba`."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from slotssm.config import TimeMixerConfig
from slotssm.layers.inputs import check_input, check_sizes, check_state
from slotssm.layers.time_mixers.step_sizes import draw_step_sizes, inverse_softplus
from slotssm.ops import selective_scan, selective_scan_step
from slotssm.ops.convolution import causal_convolve
from slotssm.registry import register_time_mixer


class MambaState(NamedTuple):
    """State of a Mamba block between two calls.

    Attributes:
        conv: [B, E, d_conv] the last inputs of the convolution, newest last.
        ssm: [B, E, N] state of the recurrence.
    """

    conv: Tensor
    ssm: Tensor


class MambaConfig(TimeMixerConfig):
    """Time mixer: one Mamba (v1) block, whose weights all slots share."""

    kind: Literal["mamba"] = "mamba"
    d_state: int = Field(16, ge=1)
    """N: state size of each inner channel."""
    d_conv: int = Field(4, ge=1)
    """Width of the causal depthwise convolution in steps."""
    expand: float = Field(2.0, gt=0)
    """Inner width E = int(expand * slot_dim)."""

    def check_width(self, slot_dim: int) -> None:
        """Refuse an inner width of zero."""
        if int(self.expand * slot_dim) < 1:
            raise ValueError("time_mixer.expand must leave at least one channel of slot_dim")


@register_time_mixer("mamba", MambaConfig)
class Mamba(nn.Module):
    """Selective state space block (Gu & Dao 2023, figure 3).

    Args:
        d_model: width D of input and output.
        d_state: state size N of each inner channel.
        d_conv: width of the causal depthwise convolution.
        expand: inner width E = int(expand * d_model); fractions such as 1.25 are fine.
        dt_rank: rank of the step-size map; None is ceil(D / 16).
        dt_min: lower end of the initial step sizes, drawn log-uniformly.
        dt_max: upper end.
        dt_init_floor: smallest initial step size.
        backend: backend of the scan, see `slotssm.ops.selective_scan`.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int | float = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_init_floor: float = 1e-4,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = int(expand * d_model)
        check_sizes(self, d_model=d_model, d_state=d_state, d_conv=d_conv, d_inner=self.d_inner)
        self.dt_rank = dt_rank or math.ceil(d_model / 16)
        self.backend = backend
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1, bias=True)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner, bias=True)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, d_state + 1).float()).repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        with torch.no_grad():
            dt = draw_step_sizes(self.d_inner, dt_min, dt_max).clamp(min=dt_init_floor)
            self.dt_proj.bias.copy_(inverse_softplus(dt))

    def initial_state(self, batch_size: int) -> MambaState:
        """The initial state: zeros."""
        return MambaState(
            self.D.new_zeros(batch_size, self.d_inner, self.d_conv),
            self.D.new_zeros(batch_size, self.d_inner, self.d_state),
        )

    def forward(
        self, u: Float[Tensor, "B L D"], state: MambaState | None = None
    ) -> tuple[Float[Tensor, "B L D"], MambaState]:
        """Process a sequence in parallel, continuing from `state`; returns the outputs and the new state.

        Raises:
            InputError: `u` has the wrong shape, width or dtype, or the state is of another batch.
        """
        check_input(self, u, "B, L", self.d_model)
        check_state(self, state, len(u))
        x, z = self.in_proj(u).chunk(2, dim=-1)
        past = x.new_zeros(u.shape[0], self.d_inner, self.d_conv) if state is None else state.conv
        x, conv = causal_convolve(x, past, self.conv1d.weight[:, 0], self.conv_bias)
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y, ssm = selective_scan(
            x,
            F.linear(dt, self.dt_proj.weight),
            self._decay_rates,
            B,
            C,
            D=self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            initial_state=None if state is None else state.ssm,
            return_final_state=True,
            backend=self.backend,
        )
        return self.out_proj(y), MambaState(conv, ssm)

    @property
    def _decay_rates(self) -> Tensor:
        """A, [E, N], never below float32; a model in float64 keeps its precision."""
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    @property
    def conv_bias(self) -> Tensor:
        """Bias of the convolution, [E]."""
        assert self.conv1d.bias is not None
        return self.conv1d.bias

    def step(self, u: Float[Tensor, "B D"], state: MambaState) -> tuple[Float[Tensor, "B D"], MambaState]:
        """Process one step; returns the output and the new state; errors as in `forward`."""
        check_input(self, u, "B", self.d_model)
        check_state(self, state, len(u))
        x, z = self.in_proj(u).chunk(2, dim=-1)
        conv = torch.cat([state.conv[:, :, 1:], x[..., None]], dim=-1)
        x = F.silu((conv * self.conv1d.weight[:, 0]).sum(-1) + self.conv_bias)
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y, ssm = selective_scan_step(
            state.ssm,
            x,
            F.linear(dt, self.dt_proj.weight),
            self._decay_rates,
            B,
            C,
            D=self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
        )
        return self.out_proj(y), MambaState(conv, ssm)
