"""Encoders from pixels to tokens: an MLP over pieces of a patch, or a CNN over the whole frame."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.errors import InputError
from slotssm.layers.attention import Attention, MLPBlock
from slotssm.layers.initialization import fold_normalization
from slotssm.layers.positions import grid_size, sincos, sincos_grid


class PieceTokenizer(nn.Module):
    """Split frames into patches, one per step, and each patch into square pieces, one token each (paper, appendix C).

    A token is a linear map of the piece's pixels, plus sine-cosine embeddings of the position of the piece in the
    whole frame and of the index of the frame (both our choice), followed by an MLP.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        patches_per_side: P; a frame is split into P · P patches of H/P · W/P pixels.
        piece_px: side of a piece in pixels.
        dim: width D of the tokens.

    Raises:
        InputError: `piece_px` does not divide the patches.

    Attributes:
        grid: rows and columns of pieces of a frame.
    """

    positions: Tensor
    scales_weights = True

    def __init__(self, height: int, width: int, patches_per_side: int, piece_px: int, dim: int) -> None:
        super().__init__()
        self.patches_per_side, self.piece_px, self.dim = patches_per_side, piece_px, dim
        self.grid = grid_size(height, width, piece_px, "pieces")
        self._grid_of_patch(patches_per_side)
        self.register_buffer("positions", sincos_grid(*self.grid, dim), persistent=False)
        self.embed = nn.Linear(3 * piece_px**2, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(
        self, frames: Float[Tensor, "B T 3 H W"], first_frame: int = 0, patches_per_side: int | None = None
    ) -> Float[Tensor, "B L M D"]:
        """Tokens of L = T·P·P steps.

        Args:
            frames: pixels in [0, 1].
            first_frame: index of the first frame within its episode.
            patches_per_side: P for this call if it differs from the module's; the weights do not depend on P.

        Raises:
            InputError: frames with the wrong size, shape or dtype, or `piece_px` does not divide the patches.
        """
        s, patches = self.piece_px, patches_per_side or self.patches_per_side
        rows, columns = self._grid_of_patch(patches)
        check_frames(frames, self.grid, s)
        pieces = rearrange(frames, "b t c (y s) (x z) -> b t (y x) (c s z)", s=s, z=s)
        time = torch.arange(first_frame, first_frame + frames.shape[1], device=frames.device)
        tokens = self.embed(pieces) + self.positions + sincos(time, self.dim)[:, None]
        # from raster order of pieces to one step per patch
        return self.mlp(
            rearrange(tokens, "b t (p i q j) d -> b (t p q) (i j) d", p=patches, i=rows, q=patches, j=columns)
        )

    def normalize_pixels(self, mean: Float[Tensor, "3"], std: Float[Tensor, "3"]) -> None:
        """Give for pixels from now on what was given for (pixels - mean) / std."""
        fold_normalization(self.embed, mean, std)

    def _grid_of_patch(self, patches_per_side: int) -> tuple[int, int]:
        """Rows and columns of pieces of one patch."""
        rows, columns = self.grid
        if rows % patches_per_side or columns % patches_per_side:
            s, p = self.piece_px, patches_per_side
            raise InputError(
                f"{p} x {p} patches of a frame of {rows * s} x {columns * s} pixels (height x width) do not consist of "
                f"whole pieces of {s} x {s} pixels"
            )
        return rows // patches_per_side, columns // patches_per_side


class CNNEncoder(nn.Module):
    """A small CNN per frame plus a position embedding; every cell of its last feature map is a token.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        channels: channels of the 3 x 3 convolutions.
        downsample: factor between pixels and tokens per side, a power of two; the first convolutions have the strides.
        dim: width D of the tokens.
        num_blocks: residual blocks of each entry of `channels`; 0 has a single convolution with ReLU for each.

    Raises:
        InputError: `downsample` does not divide the frame, or there are too few convolutions for its strides of 2.

    Attributes:
        grid: rows and columns of tokens of a frame.
    """

    positions: Tensor
    scales_weights = True

    def __init__(
        self, height: int, width: int, channels: tuple[int, ...], downsample: int, dim: int, num_blocks: int = 0
    ) -> None:
        super().__init__()
        if downsample not in [2**strides for strides in range(len(channels) + 1)]:
            raise InputError(
                f"{len(channels)} convolutions with strides of 1 or 2 cannot reduce a frame by a factor of {downsample}"
            )
        self.downsample, self.grid = downsample, grid_size(height, width, downsample, "cells")
        convolutions: list[nn.Module] = []
        for before, after in zip((3, *channels), channels, strict=False):
            stride = 2 if downsample > 1 else 1
            downsample //= stride
            if num_blocks:
                convolutions += [ResidualBlock(before, after, stride)]
                convolutions += [ResidualBlock(after, after) for _ in range(num_blocks - 1)]
            else:
                convolutions += [nn.Conv2d(before, after, 3, stride, padding=1), nn.ReLU()]
        self.cnn = nn.Sequential(*convolutions)
        self.register_buffer("positions", sincos_grid(*self.grid, dim), persistent=False)
        self.project = nn.Linear(channels[-1], dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T M D"]:
        """Tokens of every frame, row by row.

        Raises:
            InputError: frames with the wrong size, shape or dtype.
        """
        check_frames(frames, self.grid, self.downsample)
        batch = frames.shape[0]
        features = self.cnn(rearrange(frames, "b t c h w -> (b t) c h w"))
        tokens = self.project(rearrange(features, "n c h w -> n (h w) c")) + self.positions
        return rearrange(self.mlp(tokens), "(b t) m d -> b t m d", b=batch)

    def normalize_pixels(self, mean: Float[Tensor, "3"], std: Float[Tensor, "3"]) -> None:
        """Give for pixels from now on what was given for (pixels - mean) / std, but for the padding at the edges.

        Residual blocks have norms, which do this for every frame.
        """
        first = self.cnn[0]
        if isinstance(first, nn.Conv2d):
            fold_normalization(first, mean, std)


class ResidualBlock(nn.Module):
    """Basic residual block (He et al. 2016, 1512.03385): two 3 x 3 convolutions, each normalised, and a shortcut.

    Group normalisation, in groups of about four channels, takes the place of batch normalisation, as in SAVi++.

    Args:
        before: channels of the input.
        after: channels of the output.
        stride: of the first convolution and the shortcut, which is a 1 x 1 convolution if the shape changes.
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            _group_norm(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            _group_norm(after),
        )
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), _group_norm(after))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C2 H2 W2"]:
        """Apply the block."""
        # the same as a strided 1 x 1 convolution, whose gradient on a CPU writes out of bounds (torch 2.13: 3 channels,
        # channels last)
        kept = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(self.convolutions(x) + self.shortcut(kept))


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 4)), channels)


class ResidualEncoder(nn.Module):
    """Frame encoder of SAVi++ (Elsayed et al. 2022, 2206.07764): a residual CNN, then a Transformer over its tokens.

    It is smaller than the published one, which has the blocks of a ResNet-34 and 4 Transformer layers, and halves the
    sides in the first stages instead of the last, which takes less time. The Transformer is pre-norm, as published.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        channels: channels of the stages of residual blocks.
        downsample: factor between pixels and tokens per side, a power of two; the first stages have the strides.
        dim: width D of the tokens.
        num_blocks: residual blocks of each stage.
        num_layers: layers of the Transformer: self-attention over the tokens of a frame, MLP.
        num_heads: heads of the attentions.
        mlp_ratio: hidden width of the MLPs as a multiple of `dim`.
        dropout: in every block of the Transformer; 0 is off.

    Raises:
        InputError: as for `CNNEncoder`.

    Attributes:
        grid: rows and columns of tokens of a frame.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: tuple[int, ...],
        downsample: int,
        dim: int,
        num_blocks: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.cnn = CNNEncoder(height, width, channels, downsample, dim, num_blocks)
        self.grid = self.cnn.grid
        blocks = [(Attention(dim, num_heads, dropout), MLPBlock(dim, mlp_ratio, dropout)) for _ in range(num_layers)]
        self.layers = nn.Sequential(*(part for block in blocks for part in block))

    def forward(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T M D"]:
        """Tokens of every frame, row by row; no frame affects the tokens of another.

        Raises:
            InputError: frames with the wrong size, shape or dtype.
        """
        tokens = self.cnn(frames)
        return rearrange(self.layers(rearrange(tokens, "b t m d -> (b t) m d")), "(b t) m d -> b t m d", b=len(tokens))


def check_frames(frames: Tensor, grid: tuple[int, int], cell_px: int) -> None:
    """Refuse anything but a floating-point batch of videos of the grid's size.

    Raises:
        InputError: wrong shape, size or dtype.
    """
    height, width = (cells * cell_px for cells in grid)
    if frames.ndim != 5 or frames.shape[2:] != (3, height, width) or not frames.is_floating_point():
        dtype = str(frames.dtype).removeprefix("torch.")
        raise InputError(
            f"frames must be floating-point numbers of shape [B, T, 3, {height}, {width}] (height before width), not "
            f"{dtype} of shape {list(frames.shape)}"
        )
