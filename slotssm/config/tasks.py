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
    targets: Literal["last", "prefix"] = "last"
    """What training asks for: the target after the last context frame (the paper's protocol), or after every
    context frame the next frame, coloured by the rule so far, which learns much sooner."""
    curriculum: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    """Stages before the data's own patches: (patches per side, optimiser steps) each; empty is off."""


class PredictConfig(Config):
    """Predict the next frame from all frames so far; roll out by reading one's own predictions (section 7.1)."""

    kind: Literal["predict"] = "predict"
    piece_px: int = Field(4, ge=1)
    """Side of the square pieces of a frame, one token each; also of the decoder's pieces."""
    num_decoder_layers: int = Field(3, ge=1)
    """Layers of the Transformer decoder: self-attention, cross-attention to the slots, MLP."""
    loss: Literal["bce", "mse", "ce"] = "bce"
    """`bce`: binary cross-entropy, for white objects on black; `mse`: squared error of RGB; `ce`: cross-entropy
    over the recipe's colours and black."""
    num_context: int = Field(10, ge=1)
    """Frames that are given before a roll-out; it goes on to the end of the episode."""
    feedback: Literal["mean", "mode"] = "mean"
    """What a roll-out reads of its own predictions: expected pixels, or the most likely ones (`bce` and `ce`)."""
    max_first_frame: int = Field(0, ge=0)
    """While training, frames are numbered from a random start up to this, so that a roll-out that is longer
    than a training clip meets no frame number that was never seen; 0 always starts at 0."""


TaskConfig = Annotated[ReconstructConfig | RecallConfig | PredictConfig, Field(discriminator="kind")]
