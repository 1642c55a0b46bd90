"""Initial step sizes of state space models: log-uniform, which covers all time scales equally."""

import math

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from slotssm.config import TimeMixerConfig


class TimeInvariantConfig(TimeMixerConfig):
    """Configuration fields of S4D and S5: a time-invariant diagonal complex state space model."""

    d_state: int = Field(64, ge=2, multiple_of=2)
    """N: state size of each channel (S4D) or of all channels together (S5), in conjugate pairs."""
    dt_min: float = Field(1e-3, gt=0)
    """Smallest initial step size; initially a state decays by exp(-dt / 2) per step."""
    dt_max: float = Field(1e-1, gt=0)
    """Largest initial step size; they are drawn log-uniformly."""

    @model_validator(mode="after")
    def _check(self) -> "TimeInvariantConfig":
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min {self.dt_min:g} exceeds dt_max {self.dt_max:g}")
        return self


def draw_step_sizes(count: int, dt_min: float, dt_max: float) -> Float[Tensor, " count"]:
    """Draw `count` step sizes log-uniformly between `dt_min` and `dt_max`."""
    return torch.exp(torch.rand(count) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))


def inverse_softplus(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The y for which softplus(y) = x > 0."""
    return x + torch.log(-torch.expm1(-x))
