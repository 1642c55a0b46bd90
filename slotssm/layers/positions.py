"""Fixed sine-cosine position embeddings of unit scale.

Their scale matters: with learned embeddings of scale 0.02 the recall model stays on the plateau of
predicting background everywhere much longer (an observation in early trials, not a benchmark).
"""

import math

import torch
from jaxtyping import Float, Real
from torch import Tensor

from slotssm.errors import InputError


def sincos(position: Real[Tensor, "*shape"], dim: int, period: float = 10_000.0) -> Float[Tensor, "*shape D"]:
    """Embed scalar positions in `dim` channels, half sines and half cosines, of wavelengths 2π to 2π·period."""
    half = dim // 2
    frequency = torch.exp(-math.log(period) * torch.arange(half, device=position.device) / half)
    angle = position[..., None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def sincos_grid(height: int, width: int, dim: int, period: float = 100.0) -> Float[Tensor, "HW D"]:
    """Embed a grid row by row: half of the channels for the row, half for the column.

    Raises:
        InputError: `dim` is not a multiple of 4.
    """
    if dim % 4:
        raise InputError(f"positions in a grid need a width that is a multiple of 4, not {dim}")
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.cat([sincos(row.flatten(), dim // 2, period), sincos(column.flatten(), dim // 2, period)], dim=-1)


def grid_size(height: int, width: int, cell_px: int, cells: str) -> tuple[int, int]:
    """Rows and columns of square cells of a frame.

    Args:
        height: of the frame in pixels.
        width: of the frame in pixels.
        cell_px: side of a cell in pixels.
        cells: what the cells are, for the error.

    Raises:
        InputError: the frame does not consist of whole cells.
    """
    if min(height, width) < cell_px or height % cell_px or width % cell_px:
        raise InputError(
            f"a frame of {height} x {width} pixels (height x width) does not consist of whole {cells} of "
            f"{cell_px} x {cell_px} pixels"
        )
    return height // cell_px, width // cell_px
