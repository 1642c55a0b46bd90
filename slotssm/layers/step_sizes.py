"""Initial step sizes of state space models: log-uniform, so that every time scale gets its share."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def draw_step_sizes(count: int, dt_min: float, dt_max: float) -> Float[Tensor, " count"]:
    """Draw `count` step sizes log-uniformly between `dt_min` and `dt_max`."""
    return torch.exp(torch.rand(count) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))


def inverse_softplus(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The y for which softplus(y) = x > 0."""
    return x + torch.log(-torch.expm1(-x))
