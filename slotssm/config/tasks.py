"""What a model is trained to do."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from slotssm.documents import Config


class ReconstructConfig(Config):
    """Reconstruct every frame from its slots: CNN tokens, spatial broadcast decoder, mean squared error."""

    kind: Literal["reconstruct"] = "reconstruct"
    encoder_channels: tuple[PositiveInt, ...] = Field((32, 32, 32), min_length=1)
    """Channels of the frame encoder's convolutions (3 x 3)."""
    encoder_downsample: int = Field(2, ge=1)
    """Factor between pixels and tokens per side, a power of two: strided convolutions come first."""
    decoder: Literal["convolutions", "pieces"] = "convolutions"
    """How the broadcast slot becomes an image: strided transposed convolutions, or an MLP in every cell of a
    grid that paints a square piece, which trains faster on a CPU."""
    decoder_channels: tuple[PositiveInt, ...] = Field((32, 32), min_length=1)
    """Channels of the transposed convolutions (4 x 4, each doubling the side), or widths of the MLP."""
    decoder_piece_px: int = Field(4, ge=1)
    """Side of the piece that each cell paints with `decoder = "pieces"`."""


class RecallConfig(Config):
    """Recall colours: predict the whole target frame from the slots of the last step (paper, section 7.2)."""

    kind: Literal["recall"] = "recall"
    piece_px: int = Field(4, ge=1)
    """Side of the pieces that a patch is cut into, one token each; also of the decoder's pieces."""
    num_decoder_layers: int = Field(3, ge=1)
    """Layers of the Transformer decoder: self-attention, cross-attention to the slots, MLP."""


TaskConfig = Annotated[ReconstructConfig | RecallConfig, Field(discriminator="kind")]
