"""Decoders from slots to pixels: a Transformer over position queries, or an image and a mask for every slot."""

from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.attention import QueryBlock
from slotssm.layers.checkpointing import checkpointed
from slotssm.layers.inputs import check_input
from slotssm.layers.positions import grid_size, sincos_grid


class PieceDecoder(nn.Module):
    """Transformer decoder: position queries attend to each other and to the slots (paper, appendix C).

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        piece_px: side in pixels of the square that each query decodes.
        num_channels: values per pixel, for example classes.
        dim: width D.
        num_layers: layers of self-attention, cross-attention to the slots, and MLP.
        num_heads: heads of the attentions.
        mlp_ratio: hidden width of the MLPs as a multiple of `dim`.
        dropout: in every block; 0 is off.

    Raises:
        InputError: `piece_px` does not divide the frame.

    Attributes:
        grid: rows and columns of pieces of a frame.
        checkpoint_activations: in training, recompute the layers' activations in the backward pass instead of storing
            them.
    """

    queries: Tensor
    checkpoint_activations: bool = False

    def __init__(
        self,
        height: int,
        width: int,
        piece_px: int,
        num_channels: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid, self.piece_px = grid_size(height, width, piece_px, "pieces"), piece_px
        self.register_buffer("queries", sincos_grid(*self.grid, dim), persistent=False)
        self.layers = nn.ModuleList(QueryBlock(dim, num_heads, mlp_ratio, dropout) for _ in range(num_layers))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, num_channels * piece_px**2))

    def forward(self, slots: Float[Tensor, "B K D"]) -> Float[Tensor, "B C H W"]:
        """Values of every pixel.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", self.queries.shape[1])
        x = self.queries[None]
        for layer in self.layers:
            x = checkpointed(self, layer, x, slots)
        s = self.piece_px
        return rearrange(self.head(x), "b (y x) (c s z) -> b c (y s) (x z)", y=self.grid[0], s=s, z=s)

    def slots_read(self, slots: Float[Tensor, "B K D"]) -> Float[Tensor, "B K h w"]:
        """Which slots each piece is decoded from: the cross-attention of the last layer, mean over its heads.

        It sums to 1 over the slots, and its argmax is the map of the paper's figure 12. The layers before the last are
        computed as in `forward`, which does not depend on whether this is called.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", self.queries.shape[1])
        *before, last = (layer for layer in self.layers if isinstance(layer, QueryBlock))
        x = self.queries[None]
        for layer in before:
            x = layer(x, slots)
        return rearrange(last.context_weights(x, slots).mean(1), "b (y x) k -> b k y x", y=self.grid[0])

    def count_unused_parameters(self, num_slots: int) -> int:
        """Number of parameters that cannot affect the output for K slots."""
        blocks = [layer for layer in self.layers if isinstance(layer, QueryBlock)]
        return sum(block.count_unused_parameters(len(self.queries), num_slots) for block in blocks)


class SpatialBroadcastDecoder(nn.Module):
    """Decode every slot to an image and alpha logits; a softmax over slots blends them (paper, section 5.2).

    A slot is broadcast to every cell of a small grid and a position embedding is added; `painter` maps the grid to
    the P channels of a picture at full resolution (red, green and blue, or depth alone) and the alpha logit. A canvas,
    if there is one, is blended like a further slot, with the same logit everywhere, and the painter then gives the
    difference of a slot's image from it: slots that have learned nothing yet look like the canvas and do no harm.
    Otherwise they would first learn to yield every pixel to the canvas, and no longer be trained.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        dim: width D of the slots.
        painter: maps [B, D, h, w] to [B, P + 1, H, W]; see `convolution_painter` and `piece_painter`.
        upsampling: H / h = W / w.

    Raises:
        InputError: `upsampling` does not divide the frame.

    Attributes:
        grid: rows h and columns w of the grid.
        checkpoint_activations: in training, recompute the painter's activations in the backward pass instead of
            storing them.
    """

    positions: Tensor
    checkpoint_activations: bool = False

    def __init__(self, height: int, width: int, dim: int, painter: nn.Module, upsampling: int) -> None:
        super().__init__()
        self.grid = grid_size(height, width, upsampling, "cells")
        self.register_buffer("positions", sincos_grid(*self.grid, dim), persistent=False)
        self.painter = painter

    def forward(
        self,
        slots: Float[Tensor, "B K D"],
        canvas: Float[Tensor, "B P H W"] | None = None,
        canvas_logit: float = 0.0,
    ) -> tuple[Float[Tensor, "B P H W"], Float[Tensor, "B C P H W"], Float[Tensor, "B C H W"]]:
        """Decode every slot and blend the images.

        Args:
            slots: K slots of every frame.
            canvas: background image of every frame; see `slotssm.layers.ColorCanvas` and `ImageCanvas`.
            canvas_logit: its alpha logit in every pixel; a slot must exceed it to own the pixel.

        Returns:
            The blended image, C images and C masks, which sum to 1 over C. C is K, or K + 1 with a canvas, which is
            the last.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", self.positions.shape[1])
        batch = slots.shape[0]
        cells = rearrange(slots, "b k d -> (b k) 1 d") + self.positions
        painted = checkpointed(self, self.painter, rearrange(cells, "n (y x) d -> n d y x", y=self.grid[0]))
        channels = rearrange(painted, "(b k) c h w -> b k c h w", b=batch)
        images, logits = channels[:, :, :-1], channels[:, :, -1]
        if canvas is not None:
            images = torch.cat([images + canvas[:, None].detach(), canvas[:, None]], dim=1)
            logits = torch.cat([logits, torch.full_like(logits[:, :1], canvas_logit)], dim=1)
        masks = torch.softmax(logits, dim=1)
        # a product and a sum: torch would compute an einsum as many tiny matrix products
        return (images * masks[:, :, None]).sum(1), images, masks


def convolution_painter(dim: int, channels: tuple[int, ...], num_channels: int = 3) -> nn.Module:
    """Strided transposed convolutions (4 x 4), each doubling the side, and a final 3 x 3 convolution.

    Args:
        dim: width D of the broadcast slots.
        channels: of the transposed convolutions.
        num_channels: P, the channels of a picture; the alpha logit comes after them.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((dim, *channels)):
        layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], num_channels + 1, 3, padding=1))


def piece_painter(dim: int, widths: tuple[int, ...], piece_px: int, num_channels: int = 3) -> nn.Module:
    """An MLP that decodes every cell to a square piece; matrix products only, which are fast on a CPU."""
    layers: list[nn.Module] = []
    for before, after in pairwise((dim, *widths)):
        layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], num_channels + 1, piece_px, stride=piece_px))
