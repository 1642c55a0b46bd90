"""Canvases: background images that the slots of a `SpatialBroadcastDecoder` paint over; not part of the paper.

Without a canvas nothing has to own the background, and any slot can paint it at no cost.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.inputs import check_input


class Canvas(nn.Module):
    """A background image for each frame, made from its tokens [B, T, M, D]: [BT, 3, H, W]; initially black."""

    def start_from(self, color: Float[Tensor, "3"]) -> None:
        """Have this colour in [0, 1] everywhere; called before training."""
        raise NotImplementedError


class ColorCanvas(Canvas):
    """One learned colour for all frames.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.color = nn.Parameter(torch.zeros(3))

    @torch.no_grad()
    def start_from(self, color: Float[Tensor, "3"]) -> None:
        """Have this colour in [0, 1] everywhere; called before training."""
        self.color.copy_(color)

    def forward(self, tokens: Float[Tensor, "B T M D"]) -> Float[Tensor, "BT 3 H W"]:
        """The canvas of every frame; of the tokens, only their number of frames matters."""
        num_frames = tokens.shape[0] * tokens.shape[1]
        return self.color[None, :, None, None].expand(num_frames, 3, self.height, self.width)


class ImageCanvas(Canvas):
    """A smooth image for each frame: an MLP on the mean of its tokens gives a small grid, which is interpolated.

    Such an image can be a gradient or have the tint of the light, but it cannot show objects smaller than its cells.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        dim: width D of the tokens.
        cells: rows and columns of the grid; 1 makes one colour for each frame.
    """

    def __init__(self, height: int, width: int, dim: int, cells: int) -> None:
        super().__init__()
        self.height, self.width, self.dim, self.cells = height, width, dim, cells
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.head = nn.Linear(dim, 3 * cells**2)
        self.start_from(torch.zeros(3))

    @torch.no_grad()
    def start_from(self, color: Float[Tensor, "3"]) -> None:
        """Have this colour in [0, 1] everywhere; called before training."""
        self.head.weight.zero_()
        self.head.bias.copy_(color.repeat_interleave(self.cells**2))

    def forward(self, tokens: Float[Tensor, "B T M D"]) -> Float[Tensor, "BT 3 H W"]:
        """The canvas of every frame.

        Raises:
            InputError: tokens with the wrong shape, width or dtype.
        """
        check_input(self, tokens, "B, T, M", self.dim)
        grid = self.head(self.mlp(tokens.mean(dim=2))).view(-1, 3, self.cells, self.cells)
        if torch.are_deterministic_algorithms_enabled():
            # torch has no deterministic gradient of `interpolate` on CUDA
            rows, columns = (self._weights(size, grid) for size in (self.height, self.width))
            return rows @ grid @ columns.T
        return F.interpolate(grid, (self.height, self.width), mode="bilinear", align_corners=True)

    def _weights(self, size: int, grid: Tensor) -> Float[Tensor, "size cells"]:
        """Weights of linear interpolation along a side, of the dtype and on the device of the grid."""
        corners = torch.eye(self.cells, dtype=grid.dtype, device=grid.device)[None]
        return F.interpolate(corners, size, mode="linear", align_corners=True)[0].T
