"""Reconstruct every frame from its slots, for unsupervised object discovery (paper, section 5.2)."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveFloat
from torch import Tensor

from slotssm.config import ModelConfig, RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.layers import Canvas, ColorCanvas, ImageCanvas
from slotssm.models import ModelState, SlotModel
from slotssm.registry import register_task
from slotssm.tasks.outputs import Outputs
from slotssm.tasks.parts import (
    BroadcastDecoderConfig,
    FrameEncoderConfig,
    attention_maps,
    broadcast_decoder,
    frame_encoder,
)
from slotssm.tasks.task import Batch, Task, as_pixels, check_scaling, sample_frames


class ReconstructConfig(BroadcastDecoderConfig, FrameEncoderConfig):
    """Reconstruct every frame from its slots: CNN tokens, spatial broadcast decoder, mean squared error."""

    kind: Literal["reconstruct"] = "reconstruct"
    canvas: Literal["none", "color", "image"] = "none"
    """Background that the slots paint over, not in the paper: none, one learned colour, or a smooth image for each
    frame, made from its tokens. Both start from the median colour of training frames. With a canvas, masks have K + 1
    channels, of which it is the last."""
    canvas_logit: float = 0.0
    """Alpha logit of the canvas; those of the slots start near 0. The higher it is, the more a slot must bid for a
    pixel, so that what no slot has to paint is left to the canvas."""
    canvas_cells: int = Field(4, ge=1)
    """Rows and columns of the grid that `canvas = "image"` interpolates."""
    foreground_weight: float = Field(1.0, ge=1)
    """Weight in the loss of pixels that the canvas does not explain, relative to pixels that have its colour; not in
    the paper (1: all pixels count alike). Above 1, slots own the uncertain pixels at the edges of their objects."""
    foreground_weight_from: int = Field(0, ge=0)
    """Step from which on `foreground_weight` applies, so that slots can find their objects first."""
    slot_contrast: float = Field(0.0, ge=0)
    """Weight of a loss that tells slots of neighbouring frames apart, not in the paper (0: off)."""
    slot_contrast_temperature: PositiveFloat = 0.1
    """Temperature of `slot_contrast`; the lower, the more the most similar other slots count."""


@register_task("reconstruct", ReconstructConfig)
class Reconstruct(Task):
    """CNN tokens → slots → spatial broadcast decoder; mean squared error.

    Args:
        config: encoder and decoder.
        model: the sequence model over slots.
        model_config: its configuration.
        data: size of the frames.
    """

    validated = ("mse", "fg-ari", "miou")
    is_collapsed_at_mean_image = True

    def __init__(self, config: ReconstructConfig, model: SlotModel, model_config: ModelConfig, data: DataSpec) -> None:
        super().__init__()
        dim = model_config.slot_dim
        self.encoder = frame_encoder(config, model_config, data)
        self.model = model
        self.decoder = broadcast_decoder(config, dim, data)
        self.canvas: Canvas | None = None
        if config.canvas == "color":
            self.canvas = ColorCanvas(data.height, data.width)
        elif config.canvas == "image":
            self.canvas = ImageCanvas(data.height, data.width, dim, config.canvas_cells)
        self.config, self.foreground_weight = config, config.foreground_weight
        self.outputs = frozenset({"slots", "masks", "frames", "slot_frames"})
        if model.gives_attention:
            self.outputs |= {"attention"}

    @classmethod
    def check(cls, run: RunConfig, data: DataSpec) -> None:
        """Refuse additions that lack what they need, and frames whose sides the scale factors do not divide."""
        task = run.task
        assert isinstance(task, ReconstructConfig)
        if task.slot_contrast and set(run.train.clip_lens.values()) == {1}:
            raise InputError("task.slot_contrast compares neighbouring frames; set train.clip_len to at least 2")
        if task.foreground_weight > 1 and task.canvas == "none":
            raise InputError("task.foreground_weight needs a canvas, from whose colour pixels differ; set task.canvas")
        check_scaling(data, task.encoder_channels, task.encoder_downsample, task.decoder_upsampling)

    def fit_statistics(self, episodes: EpisodeFile, split: str, num_episodes: int) -> None:
        """Let a canvas start from the median colour, channel by channel, of middle frames of the training split."""
        if self.canvas is not None:
            frames = sample_frames(episodes, split, num_episodes)
            self.canvas.start_from(torch.from_numpy(np.median(frames, axis=(0, 1, 2)) / 255))

    def begin_step(self, step: int) -> None:
        """Switch the foreground weight on when its step has come."""
        self.foreground_weight = self.config.foreground_weight if step >= self.config.foreground_weight_from else 1.0

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error over all pixels and channels in [0, 1], with the additions that are switched on."""
        pixels = as_pixels(batch["frames"])
        tokens = self.encoder(pixels)
        slots = self.model(tokens).slots
        canvas = None if self.canvas is None else self.canvas(tokens)
        blended = self.decoder(slots.flatten(0, 1), canvas, self.config.canvas_logit)
        target = rearrange(pixels, "b t c h w -> (b t) c h w")
        error = F.mse_loss(blended, target)
        loss, logged = error, {}
        if self.config.foreground_weight > 1:
            assert canvas is not None, "the task's check asks for a canvas"
            loss = weighted_error(blended, target, canvas.detach(), self.foreground_weight)
            logged["mse"] = error
        if self.config.slot_contrast and slots.shape[1] > 1:
            contrast = slot_contrast(slots, self.config.slot_contrast_temperature)
            loss = loss + self.config.slot_contrast * contrast
            logged |= {"mse": error, "slot_contrast": contrast}
        return loss, logged

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Outputs:
        """Reconstructions and masks, for episodes or streams."""
        tokens = self.encoder(as_pixels(frames))
        output = self.model(tokens, state)
        canvas = None if self.canvas is None else self.canvas(tokens)
        slots = output.slots.flatten(0, 1)
        blended, images, masks = self.decoder.decompose(slots, canvas, self.config.canvas_logit)
        steps = frames.shape[1]
        return Outputs(
            output.state,
            slots=output.slots,
            masks=rearrange(masks, "(b t) k h w -> b t k h w", t=steps),
            attention=attention_maps(output.attention, self.encoder.grid, self.model.null_slot),
            frames=rearrange(blended, "(b t) c h w -> b t c h w", t=steps),
            slot_frames=rearrange(images, "(b t) k c h w -> b t k c h w", t=steps),
        )


def weighted_error(
    blended: Float[Tensor, "B 3 H W"],
    target: Float[Tensor, "B 3 H W"],
    canvas: Float[Tensor, "B 3 H W"],
    foreground_weight: float,
) -> Float[Tensor, ""]:
    """Weighted mean of the squared error, in which pixels that differ from the canvas count more.

    The weight grows from 1 to `foreground_weight` with the squared distance of the pixel's colour from the canvas, up
    to a distance of 1 (that of a saturated colour from black).
    """
    distance = (target - canvas).square().sum(1, keepdim=True).clamp(max=1)
    weight = 1 + (foreground_weight - 1) * distance
    return ((blended - target).square() * weight).sum() / (3 * weight.sum())


def slot_contrast(slots: Float[Tensor, "B T K D"], temperature: float) -> Float[Tensor, ""]:
    """Contrastive loss between the slots of neighbouring frames (Manasyan et al., CVPR 2025, 2412.14295).

    For every slot of a frame, the same slot of the next frame of its video is to be found among all slots of the next
    frames of all videos of the batch, by cosine similarity.

    Args:
        slots: of T ≥ 2 frames.
        temperature: by which similarities are divided.

    Returns:
        The cross-entropy, mean over slots and pairs of frames.
    """
    directions = rearrange(F.normalize(slots, dim=-1), "b t k d -> t (b k) d")
    similarity = directions[:-1] @ directions[1:].transpose(1, 2) / temperature
    target = torch.arange(similarity.shape[1], device=slots.device).expand(len(similarity), -1)
    return F.cross_entropy(similarity.flatten(0, 1), target.flatten())
