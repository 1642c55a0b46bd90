"""The Mamba-2 block: parameter names, shapes and initial values of `mamba_ssm.Mamba2`."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from slotssm.config import TimeMixerConfig
from slotssm.errors import InputError
from slotssm.layers.inputs import check_input, check_sizes, check_state
from slotssm.layers.time_mixers.step_sizes import draw_step_sizes, inverse_softplus
from slotssm.ops.convolution import causal_convolve
from slotssm.ops.ssd import ssd, ssd_step
from slotssm.registry import register_time_mixer


class Mamba2State(NamedTuple):
    """State of a Mamba-2 block between two calls; E = H·P inner channels, G groups.

    Attributes:
        conv: [B, E + 2·G·N, d_conv] the last inputs of the convolution, newest last.
        ssm: [B, H, P, N] state of the recurrence.
    """

    conv: Tensor
    ssm: Tensor


class GatedRMSNorm(nn.Module):
    """RMSNorm of y · SiLU(z), separately for each group of channels.

    Args:
        dim: number of channels.
        num_groups: groups of channels, dividing `dim`.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, num_groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, y: Float[Tensor, "*batch E"], z: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch E"]:
        """Gate and normalise, in at least float32."""
        dtype = torch.promote_types(y.dtype, torch.float32)
        gated = (y.to(dtype) * F.silu(z.to(dtype))).unflatten(-1, (self.num_groups, -1))
        scale = torch.rsqrt(gated.square().mean(-1, keepdim=True) + self.eps)
        return ((gated * scale).flatten(-2) * self.weight).to(y.dtype)


class Mamba2Config(TimeMixerConfig):
    """Time mixer: one Mamba-2 block, whose weights all slots share."""

    kind: Literal["mamba2"] = "mamba2"
    d_state: int = Field(64, ge=1)
    """N: state size of each inner channel."""
    d_conv: int = Field(4, ge=1)
    """Width of the causal depthwise convolution in steps."""
    expand: float = Field(2.0, gt=0)
    """Inner width E = int(expand * slot_dim)."""
    headdim: int = Field(16, ge=1)
    """Channels of a head, which share one decay; divides the inner width."""
    ngroups: int = Field(1, ge=1)
    """Groups of heads that share their input and output maps; divides the number of heads."""
    chunk_size: int = Field(32, ge=1)
    """Steps per chunk of the scan; affects speed and memory, not the result."""

    def check_width(self, slot_dim: int) -> None:
        """Refuse an inner width of zero, or one that is not divisible into heads and groups."""
        inner = int(self.expand * slot_dim)
        if inner < 1:
            raise ValueError("time_mixer.expand must leave at least one channel of slot_dim")
        if inner % self.headdim:
            raise ValueError(f"time_mixer.headdim {self.headdim} does not divide expand * slot_dim = {inner}")
        if (heads := inner // self.headdim) % self.ngroups:
            raise ValueError(f"time_mixer.ngroups {self.ngroups} does not divide the {heads} heads of Mamba-2")


@register_time_mixer("mamba2", Mamba2Config)
class Mamba2(nn.Module):
    """State space block with one decay for each head (Dao & Gu 2024, section 7 and figure 6).

    Args:
        d_model: width D of input and output.
        d_state: state size N of each inner channel.
        d_conv: width of the causal depthwise convolution.
        expand: inner width E = int(expand * d_model); fractions such as 1.25 are fine.
        headdim: channels P of a head, dividing E.
        ngroups: groups of heads that share B and C, and of channels in the norm; divides the number of heads.
        A_init_range: ends of the uniform distribution of the initial -A.
        rmsnorm: whether the gate is followed by a norm.
        dt_min: lower end of the initial step sizes, drawn log-uniformly.
        dt_max: upper end.
        dt_init_floor: smallest initial step size.
        dt_limit: step sizes are clamped to this range. `mamba_ssm` does not do so in its `step`; here both agree.
        chunk_size: steps per chunk of the scan; affects speed and memory, not the result.

    Raises:
        InputError: the inner width is not divisible into heads, or the heads into groups.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int | float = 2,
        headdim: int = 64,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1.0, 16.0),
        rmsnorm: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        chunk_size: int = 32,
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = int(expand * d_model)
        sizes = {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "headdim": headdim, "ngroups": ngroups}
        check_sizes(self, **sizes, d_inner=self.d_inner)
        self.headdim, self.ngroups, self.nheads = headdim, ngroups, self.d_inner // headdim
        if self.d_inner % headdim:
            raise InputError(f"headdim {headdim} does not divide the inner width {self.d_inner}")
        if self.nheads % ngroups:
            raise InputError(f"ngroups {ngroups} does not divide the number of heads {self.nheads}")
        self.dt_limit, self.chunk_size = dt_limit, chunk_size
        self.conv_dim = self.d_inner + 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, self.d_inner + self.conv_dim + self.nheads, bias=False)
        self.conv1d = nn.Conv1d(self.conv_dim, self.conv_dim, d_conv, groups=self.conv_dim, padding=d_conv - 1)
        dt = draw_step_sizes(self.nheads, dt_min, dt_max).clamp(min=dt_init_floor)
        self.dt_bias = nn.Parameter(inverse_softplus(dt))
        self.A_log = nn.Parameter(torch.log(torch.empty(self.nheads).uniform_(*A_init_range)))
        self.D = nn.Parameter(torch.ones(self.nheads))
        self.norm = GatedRMSNorm(self.d_inner, ngroups) if rmsnorm else None
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def initial_state(self, batch_size: int) -> Mamba2State:
        """The initial state: zeros."""
        return Mamba2State(
            self.D.new_zeros(batch_size, self.conv_dim, self.d_conv),
            self._decay_rates.new_zeros(batch_size, self.nheads, self.headdim, self.d_state),
        )

    def forward(
        self, u: Float[Tensor, "B L D"], state: Mamba2State | None = None
    ) -> tuple[Float[Tensor, "B L D"], Mamba2State]:
        """Process a sequence in parallel, continuing from `state`; returns the outputs and the new state.

        Raises:
            InputError: `u` has the wrong shape, width or dtype, or the state is of another batch.
        """
        check_input(self, u, "B, L", self.d_model)
        check_state(self, state, len(u))
        if state is None:
            state = self.initial_state(u.shape[0])
        z, x, B, C, dt, conv = self._read(u, state.conv)
        y, ssm = ssd(
            x,
            dt,
            self._decay_rates,
            B,
            C,
            D=self.D,
            initial_state=state.ssm,
            return_final_state=True,
            chunk_size=self.chunk_size,
        )
        return self._write(y, z), Mamba2State(conv, ssm)

    def step(self, u: Float[Tensor, "B D"], state: Mamba2State) -> tuple[Float[Tensor, "B D"], Mamba2State]:
        """Process one step; returns the output and the new state; errors as in `forward`."""
        check_input(self, u, "B", self.d_model)
        check_state(self, state, len(u))
        *inputs, conv = self._read(u[:, None], state.conv)
        z, x, B, C, dt = (tensor[:, 0] for tensor in inputs)
        y, ssm = ssd_step(state.ssm, x, dt, self._decay_rates, B, C, D=self.D)
        return self._write(y, z), Mamba2State(conv, ssm)

    def _read(self, u: Tensor, past: Tensor) -> tuple[Tensor, ...]:
        """Gate, inputs of the scan by head and group, and the convolution's next state."""
        z, mixed, dt = self.in_proj(u).split([self.d_inner, self.conv_dim, self.nheads], dim=-1)
        assert self.conv1d.bias is not None
        mixed, conv = causal_convolve(mixed, past, self.conv1d.weight[:, 0], self.conv1d.bias)
        maps = self.ngroups * self.d_state
        x, B, C = mixed.split([self.d_inner, maps, maps], dim=-1)
        B, C = B.unflatten(-1, (self.ngroups, -1)), C.unflatten(-1, (self.ngroups, -1))
        delta = F.softplus(dt.to(self._decay_rates.dtype) + self.dt_bias).clamp(*self.dt_limit)
        return z, x.unflatten(-1, (self.nheads, -1)), B, C, delta, conv

    def _write(self, y: Tensor, z: Tensor) -> Tensor:
        """Gate, norm and the map to the output."""
        y = y.flatten(-2)
        return self.out_proj(y * F.silu(z) if self.norm is None else self.norm(y, z))

    @property
    def _decay_rates(self) -> Tensor:
        """A, [H], never below float32; a model in float64 keeps its precision."""
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))
