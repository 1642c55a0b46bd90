"""Fixed sine-cosine position embeddings of unit scale.

The scale matters: with learned embeddings of scale 0.02, the recall model stays much longer on the plateau of
predicting background everywhere (an observation in early trials, not a benchmark).
"""

import math

import torch
from jaxtyping import Float, Real
from torch import Tensor

from slotssm.errors import InputError


def sincos(position: Real[Tensor, "*shape"], dim: int, period: float = 10_000.0) -> Float[Tensor, "*shape D"]:
    """Embed scalar positions in `dim` channels, half sines and half cosines, with wavelengths from 2π to 2π·period."""
    half = dim // 2
    frequency = torch.exp(-math.log(period) * torch.arange(half, device=position.device) / half)
    angle = position[..., None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def sincos_grid(height: int, width: int, dim: int, period: float = 100.0) -> Float[Tensor, "HW D"]:
    """Embed the cells of a grid in raster order: half of the channels for the row, half for the column.

    Raises:
        InputError: `dim` is not a multiple of 4.
    """
    if dim % 4:
        raise InputError(f"grid position embeddings need a width that is a multiple of 4, not {dim}")
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.cat([sincos(row.flatten(), dim // 2, period), sincos(column.flatten(), dim // 2, period)], dim=-1)


def grid_size(height: int, width: int, cell_px: int, cells: str) -> tuple[int, int]:
    """Rows and columns of the grid that square cells form in a frame.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        cell_px: side of a cell in pixels.
        cells: name of the cells, for the message.

    Raises:
        InputError: `cell_px` does not divide the frame.
    """
    if min(height, width) < cell_px or height % cell_px or width % cell_px:
        raise InputError(
            f"a frame of {height} x {width} pixels (height x width) does not consist of whole {cells} of "
            f"{cell_px} x {cell_px} pixels"
        )
    return height // cell_px, width // cell_px
