"""Fixed sine-cosine position embeddings of unit scale.

Their scale matters: with learned embeddings of scale 0.02 the recall model stays on the plateau of
predicting background everywhere much longer (an observation in early trials, not a benchmark).
"""

import math

import torch
from jaxtyping import Float, Real
from torch import Tensor


def sincos(position: Real[Tensor, "*shape"], dim: int, period: float = 10_000.0) -> Float[Tensor, "*shape D"]:
    """Embed scalar positions in `dim` channels, half sines and half cosines, of wavelengths 2π to 2π·period."""
    half = dim // 2
    frequency = torch.exp(-math.log(period) * torch.arange(half, device=position.device) / half)
    angle = position[..., None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def sincos_grid(height: int, width: int, dim: int, period: float = 100.0) -> Float[Tensor, "HW D"]:
    """Embed a grid row by row: half of the channels for the row, half for the column; `dim` a multiple of 4."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.cat([sincos(row.flatten(), dim // 2, period), sincos(column.flatten(), dim // 2, period)], dim=-1)
    return grid
