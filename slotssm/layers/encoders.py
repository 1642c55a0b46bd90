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
        side = image_size // piece_px
        self.register_buffer("positions", sincos_grid(side, side, dim), persistent=False)
        self.embed = nn.Linear(3 * piece_px**2, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(
        self, frames: Float[Tensor, "B T 3 H W"], first_frame: int = 0, patches_per_side: int | None = None
    ) -> Float[Tensor, "B L M D"]:
        """Tokens of L = T·P·P steps.

        Args:
            frames: pixels in [0, 1].
            first_frame: number of the first frame within its episode.
            patches_per_side: another P than the usual one; the weights serve every P.
        """
        s, patches = self.piece_px, patches_per_side or self.patches_per_side
        pieces = rearrange(frames, "b t c (y s) (x z) -> b t (y x) (c s z)", s=s, z=s)
        time = torch.arange(first_frame, first_frame + frames.shape[1], device=frames.device)
        tokens = self.embed(pieces) + self.positions + sincos(time, self.dim)[:, None]
        side = frames.shape[-1] // s // patches
        # from raster order to one step a patch
        return self.mlp(rearrange(tokens, "b t (p i q j) d -> b (t p q) (i j) d", p=patches, i=side, q=patches, j=side))


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
