"""Reconstruct every frame from its slots (paper, section 5.2); objects are to be found on the way."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from slotssm.config import ReconstructConfig
from slotssm.layers import CNNEncoder, SpatialBroadcastDecoder, convolution_painter, piece_painter
from slotssm.models import ModelState, SlotModel
from slotssm.tasks.task import Batch, Prediction, Task, as_pixels


class Reconstruct(Task):
    """CNN tokens → slots → spatial broadcast decoder; mean squared error.

    Args:
        config: encoder and decoder.
        model: the sequence model over slots.
        image_size: side of the frame in pixels.
        dim: width D of tokens and slots.
    """

    has_masks = True

    def __init__(self, config: ReconstructConfig, model: SlotModel, image_size: int, dim: int) -> None:
        super().__init__()
        self.encoder = CNNEncoder(image_size, image_size, config.encoder_channels, config.encoder_downsample, dim)
        self.model = model
        if config.decoder == "convolutions":
            painter, upsampling = convolution_painter(dim, config.decoder_channels), 2 ** len(config.decoder_channels)
        else:
            painter = piece_painter(dim, config.decoder_channels, config.decoder_piece_px)
            upsampling = config.decoder_piece_px
        self.decoder = SpatialBroadcastDecoder(image_size, image_size, dim, painter, upsampling)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error over all pixels and channels in [0, 1]."""
        pixels = as_pixels(batch["frames"])
        slots = self.model(self.encoder(pixels)).slots
        blended, _, _ = self.decoder(rearrange(slots, "b t k d -> (b t) k d"))
        return F.mse_loss(blended, rearrange(pixels, "b t c h w -> (b t) c h w")), {}

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Prediction:
        """Reconstructions, and which slot painted which pixel."""
        output = self.model(self.encoder(as_pixels(frames)), state)
        blended, images, masks = self.decoder(rearrange(output.slots, "b t k d -> (b t) k d"))
        steps, grid = frames.shape[1], self.encoder.grid[0]
        attention = output.attention
        return Prediction(
            slots=output.slots,
            masks=rearrange(masks, "(b t) k h w -> b t k h w", t=steps),
            attention=None if attention is None else rearrange(attention, "b t k (h w) -> b t k h w", h=grid),
            frames=rearrange(blended, "(b t) c h w -> b t c h w", t=steps),
            slot_frames=rearrange(images, "(b t) k c h w -> b t k c h w", t=steps),
            state=output.state,
        )
