"""Parts of tasks that read whole frames, with their configuration: frame encoders and broadcast decoders."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from slotssm.config import ModelConfig, TaskConfig
from slotssm.data.spec import DataSpec
from slotssm.layers import (
    CNNEncoder,
    ConvolutionPainter,
    PiecePainter,
    ResidualEncoder,
    SpatialBroadcastDecoder,
)


class FrameEncoderConfig(TaskConfig):
    """Configuration fields of tasks with a frame encoder."""

    encoder: Literal["cnn", "residual"] = "cnn"
    """Encoder of every frame: a few convolutions, or the residual CNN with a Transformer over its tokens of SAVi++."""
    encoder_channels: tuple[PositiveInt, ...] = Field((32, 32, 32), min_length=1)
    """Channels of the frame encoder's convolutions (3 x 3), or of its stages of residual blocks."""
    encoder_downsample: int = Field(2, ge=1)
    """Factor between pixels and tokens per side, a power of two; the first convolutions are the strided ones."""
    encoder_blocks: int = Field(1, ge=1)
    """Residual blocks of each stage with `encoder = "residual"`."""
    encoder_layers: int = Field(1, ge=0)
    """Layers of the Transformer over the tokens of a frame with `encoder = "residual"`."""


class BroadcastDecoderConfig(TaskConfig):
    """Configuration fields of tasks with a spatial broadcast decoder."""

    decoder: Literal["convolutions", "pieces"] = "convolutions"
    """Decoder of the broadcast slots: strided transposed convolutions, or an MLP that outputs a square piece for each
    grid cell, which is faster on a CPU."""
    decoder_channels: tuple[PositiveInt, ...] = Field((32, 32), min_length=1)
    """Channels of the transposed convolutions (4 x 4, each doubling the side), or hidden widths of the MLP."""
    decoder_piece_px: int = Field(4, ge=1)
    """Side in pixels of the piece of each grid cell with `decoder = "pieces"`."""

    @property
    def decoder_upsampling(self) -> int:
        """Factor between the grid of the broadcast slots and pixels per side."""
        if self.decoder == "pieces":
            return self.decoder_piece_px
        return 2 ** len(self.decoder_channels)


def frame_encoder(
    config: FrameEncoderConfig, model_config: ModelConfig, data: DataSpec
) -> CNNEncoder | ResidualEncoder:
    """The frame encoder that a configuration describes; a Transformer has the heads and widths of the model's."""
    dim = model_config.slot_dim
    sizes = data.height, data.width, config.encoder_channels, config.encoder_downsample, dim
    if config.encoder == "cnn":
        return CNNEncoder(*sizes)
    return ResidualEncoder(
        *sizes,
        config.encoder_blocks,
        config.encoder_layers,
        model_config.num_heads,
        model_config.mlp_ratio,
        model_config.dropout,
    )


def broadcast_decoder(
    config: BroadcastDecoderConfig, dim: int, data: DataSpec, num_channels: int = 3
) -> SpatialBroadcastDecoder:
    """The spatial broadcast decoder that a configuration describes.

    Args:
        config: kind and widths.
        dim: width of the slots.
        data: size of the frames.
        num_channels: channels of a picture: 3 for colour, 1 for depth.
    """
    sizes = data.height, data.width, dim, config.decoder_channels
    if config.decoder == "convolutions":
        return SpatialBroadcastDecoder(dim, ConvolutionPainter(*sizes, num_channels))
    return SpatialBroadcastDecoder(dim, PiecePainter(*sizes, config.decoder_piece_px, num_channels))


def attention_maps(
    attention: Float[Tensor, "B T K M"] | None, grid: tuple[int, int], null_slot: bool
) -> Float[Tensor, "B T C h w"] | None:
    """Attention of a model as maps over the grid of tokens; a null slot gets a further map, which is the last.

    Args:
        attention: `ModelOutput.attention`; None stays None.
        grid: rows and columns of tokens.
        null_slot: whether the attention may sum to less than 1 over the slots.
    """
    if attention is None:
        return None
    maps = rearrange(attention, "b t k (h w) -> b t k h w", h=grid[0])
    if not null_slot:
        return maps
    rest = (1 - maps.sum(2, keepdim=True)).clamp_min(0)
    return torch.cat([maps, rest], dim=2)
