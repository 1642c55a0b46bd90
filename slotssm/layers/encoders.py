"""From pixels to tokens: pieces of a patch through an MLP, or a small CNN over the whole frame."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.positions import sincos, sincos_grid


class PieceTokenizer(nn.Module):
    """Cut frames into patches, one a step, and each patch into square pieces, one token each (paper, appendix C).

    A token is a linear map of the piece's pixels plus the position of the piece in the whole frame plus the
    number of the frame (sine-cosine; the last two are our choice), then an MLP.

    Args:
        image_size: side of the frame in pixels.
        patches_per_side: P.
        piece_px: side of a piece in pixels.
        dim: width D of the tokens.
    """

    positions: Tensor

    def __init__(self, image_size: int, patches_per_side: int, piece_px: int, dim: int) -> None:
        super().__init__()
        self.patches_per_side, self.piece_px, self.dim = patches_per_side, piece_px, dim
        self.pieces_per_side = image_size // patches_per_side // piece_px
        grid = sincos_grid(image_size // piece_px, image_size // piece_px, dim)
        self.register_buffer("positions", self._by_patch(grid[None, None])[0], persistent=False)
        self.embed = nn.Linear(3 * piece_px**2, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def _by_patch(self, pieces: Tensor) -> Tensor:
        """[B, T, all pieces, F] in raster order to [B, T·P·P, pieces of a patch, F]."""
        p, m = self.patches_per_side, self.pieces_per_side
        return rearrange(pieces, "b t (p i q j) f -> b (t p q) (i j) f", p=p, i=m, q=p, j=m)

    def forward(self, frames: Float[Tensor, "B T 3 H W"], first_frame: int = 0) -> Float[Tensor, "B L M D"]:
        """Tokens of L = T·P·P steps; `first_frame` is the number of the first frame within its episode."""
        s = self.piece_px
        pieces = rearrange(frames, "b t c (y s) (x z) -> b t (y x) (c s z)", s=s, z=s)
        tokens = self.embed(self._by_patch(pieces))
        num_frames, per_frame = frames.shape[1], self.patches_per_side**2
        time = torch.arange(first_frame, first_frame + num_frames, device=frames.device)
        time = sincos(time.repeat_interleave(per_frame), self.dim)
        return self.mlp(tokens + self.positions.repeat(num_frames, 1, 1) + time[:, None])


class CNNEncoder(nn.Module):
    """A small CNN per frame plus a position embedding; every cell of its last grid is a token.

    Args:
        image_size: side of the frame in pixels.
        channels: of the 3 x 3 convolutions.
        downsample: factor between pixels and tokens per side, a power of two; strides come first.
        dim: width D of the tokens.
    """

    positions: Tensor

    def __init__(self, image_size: int, channels: tuple[int, ...], downsample: int, dim: int) -> None:
        super().__init__()
        self.grid_size = image_size // downsample
        convolutions: list[nn.Module] = []
        for before, after in zip((3, *channels), channels, strict=False):
            stride = 2 if downsample > 1 else 1
            downsample //= stride
            convolutions += [nn.Conv2d(before, after, 3, stride, padding=1), nn.ReLU()]
        self.cnn = nn.Sequential(*convolutions)
        self.register_buffer("positions", sincos_grid(self.grid_size, self.grid_size, dim), persistent=False)
        self.project = nn.Linear(channels[-1], dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T M D"]:
        """Tokens of every frame, row by row."""
        batch = frames.shape[0]
        features = self.cnn(rearrange(frames, "b t c h w -> (b t) c h w"))
        tokens = self.project(rearrange(features, "n c h w -> n (h w) c")) + self.positions
        return rearrange(self.mlp(tokens), "(b t) m d -> b t m d", b=batch)
