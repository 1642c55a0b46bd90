"""Decoders from slots to pixels: a Transformer over position queries, or an image and a mask for every slot."""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        dim: width D of the slots.
        painter: see `ConvolutionPainter` and `PiecePainter`.

    Attributes:
        checkpoint_activations: in training, recompute the painter's activations in the backward pass instead of
            storing them.
    """

    positions: Tensor
    checkpoint_activations: bool = False

    def __init__(self, dim: int, painter: "Painter") -> None:
        super().__init__()
        self.register_buffer("positions", sincos_grid(*painter.grid, dim), persistent=False)
        self.painter = painter

    def forward(
        self,
        slots: Float[Tensor, "B K D"],
        canvas: Float[Tensor, "B P H W"] | None = None,
        canvas_logit: float = 0.0,
    ) -> Float[Tensor, "B P H W"]:
        """Decode every slot and blend the images.

        Args:
            slots: K slots of every frame.
            canvas: background image of every frame; see `slotssm.layers.ColorCanvas` and `ImageCanvas`.
            canvas_logit: its alpha logit in every pixel; a slot must exceed it to own the pixel.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", self.positions.shape[1])
        num_frames = len(slots)
        if slots.device.type == "cpu":
            num_frames = max(1, PIXELS_AT_ONCE // (max(1, slots.shape[1]) * math.prod(self.painter.size)))
        canvases = itertools.repeat(None) if canvas is None else self.painter.split(canvas).split(num_frames)
        blended = [
            blend(self._paint(part), background, canvas_logit)
            for part, background in zip(slots.split(num_frames), canvases, strict=False)
        ]
        return self.painter.join(torch.cat(blended))

    def decompose(
        self,
        slots: Float[Tensor, "B K D"],
        canvas: Float[Tensor, "B P H W"] | None = None,
        canvas_logit: float = 0.0,
    ) -> tuple[Float[Tensor, "B P H W"], Float[Tensor, "B C P H W"], Float[Tensor, "B C H W"]]:
        """What `forward` gives, and what it blends; its arguments are those of `forward`.

        Returns:
            The blended image, C images and C masks, which sum to 1 over C. C is K, or K + 1 with a canvas, which is
            the last.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", self.positions.shape[1])
        painted = self.painter.join(self._paint(slots).flatten(0, 1)).unflatten(0, slots.shape[:2])
        images = painted[:, :, :-1]
        if canvas is not None:
            images = torch.cat([images + canvas[:, None], canvas[:, None]], dim=1)
        masks = _masks(painted[:, :, -1], canvas is not None, canvas_logit)
        return (images * masks[:, :, None]).sum(1), images, masks

    def _paint(self, slots: Tensor) -> Float[Tensor, "B K N P1 S"]:
        pieces: Tensor = checkpointed(self, self.painter, slots.flatten(0, 1), self.positions)
        return pieces.unflatten(0, slots.shape[:2])


PIXELS_AT_ONCE = 2**17
"""Pixels that the slots of some frames paint at once on a CPU, whose caches would not hold the activations of all."""


class Painter(nn.ModuleList):
    """Maps slots [B, D] and the positions [hw, D] of the cells of a grid to images, in pieces [B, N, P + 1, S].

    Each of the N pieces of an image has S pixels of P + 1 channels, the alpha logit last.

    Attributes:
        size: height H and width W of an image.
        grid: rows h and columns w of the grid.
    """

    size: tuple[int, int]
    grid: tuple[int, int]

    def join(self, pieces: Float[Tensor, "B N C S"]) -> Float[Tensor, "B C H W"]:
        """Images of their pieces."""
        raise NotImplementedError

    def split(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N C S"]:
        """Pieces of images."""
        raise NotImplementedError


class ConvolutionPainter(Painter):
    """Strided transposed convolutions (4 x 4), each doubling the side, and a final 3 x 3 convolution; one piece.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        dim: width D of the slots.
        channels: of the transposed convolutions.
        num_channels: P, the channels of a picture; the alpha logit comes after them.

    Raises:
        InputError: the frame does not consist of whole cells.
    """

    def __init__(self, height: int, width: int, dim: int, channels: tuple[int, ...], num_channels: int = 3) -> None:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((dim, *channels)):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        super().__init__([*layers, nn.Conv2d(channels[-1], num_channels + 1, 3, padding=1)])
        self.size, self.grid = (height, width), grid_size(height, width, 2 ** len(channels), "cells")

    def forward(self, slots: Float[Tensor, "B D"], positions: Float[Tensor, "M D"]) -> Float[Tensor, "B 1 C S"]:
        """Paint every slot."""
        x = rearrange(slots[:, None] + positions, "b (y x) d -> b d y x", y=self.grid[0])
        for layer in self:
            x = layer(x)
        return self.split(x)

    def join(self, pieces: Float[Tensor, "B 1 C S"]) -> Float[Tensor, "B C H W"]:
        """Images of their single piece."""
        return rearrange(pieces, "b 1 c (h w) -> b c h w", h=self.size[0])

    def split(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 C S"]:
        """The whole image as a piece."""
        return rearrange(images, "b c h w -> b 1 c (h w)")


class PiecePainter(Painter):
    """An MLP that decodes every cell of the grid to a square piece; matrix products only, which are fast on a CPU.

    Args:
        height: H of the frame in pixels.
        width: W of the frame in pixels.
        dim: width D of the slots.
        widths: hidden widths.
        piece_px: side of a piece in pixels.
        num_channels: P, the channels of a picture; the alpha logit comes after them.

    Raises:
        InputError: the frame does not consist of whole pieces.
    """

    def __init__(
        self, height: int, width: int, dim: int, widths: tuple[int, ...], piece_px: int, num_channels: int = 3
    ) -> None:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((dim, *widths)):
            layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        super().__init__([*layers, nn.ConvTranspose2d(widths[-1], num_channels + 1, piece_px, stride=piece_px)])
        self.size, self.grid = (height, width), grid_size(height, width, piece_px, "pieces")
        self.piece_px = piece_px

    def forward(self, slots: Float[Tensor, "B D"], positions: Float[Tensor, "M D"]) -> Float[Tensor, "B M C S"]:
        """Paint every slot.

        The convolutions are computed as matrix products over the cells; the first, which is linear, of slots and of
        positions, before these are added.
        """
        first, *others = (layer for layer in self if isinstance(layer, nn.Conv2d))
        last = self[-1]
        assert isinstance(last, nn.ConvTranspose2d)
        assert last.bias is not None
        weight = first.weight.flatten(1)
        x = F.linear(slots, weight)[:, None] + F.linear(positions, weight, first.bias)
        x = F.relu(x, inplace=True).flatten(0, 1)
        for layer in others:
            x = F.relu(F.linear(x, layer.weight.flatten(1), layer.bias), inplace=True)
        bias = last.bias.repeat_interleave(self.piece_px**2)
        x = F.linear(x, last.weight.flatten(1).T.contiguous(), bias)
        return x.view(len(slots), len(positions), last.out_channels, self.piece_px**2)

    def join(self, pieces: Float[Tensor, "B N C S"]) -> Float[Tensor, "B C H W"]:
        """Images of their pieces."""
        return rearrange(pieces, "b (y x) c (s z) -> b c (y s) (x z)", y=self.grid[0], s=self.piece_px)

    def split(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N C S"]:
        """Pieces of images."""
        s = self.piece_px
        return rearrange(images, "b c (y s) (x z) -> b (y x) c (s z)", s=s, z=s)


def blend(
    painted: Float[Tensor, "B K N P1 S"], canvas: Float[Tensor, "B N P S"] | None = None, canvas_logit: float = 0.0
) -> Float[Tensor, "B N P S"]:
    """Mean of K images by the softmax of their alpha logits, in which a canvas may take part.

    Args:
        painted: images and, as the last channel, alpha logits; with a canvas, the images' differences from it.
        canvas: background image.
        canvas_logit: its alpha logit.
    """
    wide = painted.to(torch.promote_types(painted.dtype, torch.float32))
    blended: Tensor = _Blend.apply(wide, canvas, canvas_logit)
    return blended


def _masks(logits: Float[Tensor, "B K *pixels"], has_canvas: bool, canvas_logit: float) -> Float[Tensor, "B C *pixels"]:
    if has_canvas:
        logits = torch.cat([logits, torch.full_like(logits[:, :1], canvas_logit)], dim=1)
    return torch.softmax(logits, dim=1)


class _Blend(torch.autograd.Function):
    """The blended image alone; autograd would store and visit the K images several times.

    The masks m sum to 1 and the canvas differs from itself by 0: the image is canvas + sum_k m_k d_k. Of its gradient
    g, d_k gets m_k g; the logit of slot k gets m_k (g d_k - g sum_j m_j d_j), summed over the channels; and the canvas,
    as far as it is seen and not as what the slots are painted on, gets its own m g.
    """

    @staticmethod
    def forward(ctx: Any, painted: Tensor, canvas: Tensor | None, canvas_logit: float) -> Tensor:
        masks = _masks(painted[..., -1, :], canvas is not None, canvas_logit)
        mean = torch.zeros_like(painted[:, 0, :, :-1])
        for k in range(painted.shape[1]):
            mean.addcmul_(painted[:, k, :, :-1], masks[:, k, :, None])
        ctx.save_for_backward(painted, masks, mean)
        return mean.clone() if canvas is None else mean + canvas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        painted, masks, mean = ctx.saved_tensors
        num_slots = painted.shape[1]
        own = masks[:, :num_slots]
        slope = -(grad * mean).sum(2)[:, None]
        for channel in range(grad.shape[2]):
            slope = torch.addcmul(slope, painted[..., channel, :], grad[:, None, :, channel])
        grad_painted = torch.empty_like(painted)
        torch.mul(own[..., None, :], grad[:, None], out=grad_painted[..., :-1, :])
        torch.mul(own, slope, out=grad_painted[..., -1, :])
        has_canvas = masks.shape[1] > num_slots
        return grad_painted, masks[:, -1, :, None] * grad if has_canvas else None, None
