"""The interface of a task: a model with its encoder and head, its loss and its typed prediction."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from slotssm.models import ModelState

Batch = dict[str, Tensor]
"""Field names of the episode file to tensors with a leading batch axis."""


@dataclass(frozen=True)
class Prediction:
    """What a task makes of videos; fields that it does not produce are None.

    Attributes:
        slots: [B, T, K, D].
        masks: [B, T, K, H, W] the decoder's alphas, sum 1 over K.
        attention: [B, T, K, h, w] the encoder's attention on its grid of tokens, sum 1 over K.
        frames: [B, T', 3, H, W] in [0, 1]: reconstructions (T' = T), the predicted target (T' = 1), or predictions
            of frames to come (T' = T, one for each step of the slots).
        slot_frames: [B, T, K, 3, H, W] what each slot paints.
        state: continue a stream with it.
    """

    slots: Float[Tensor, "B T K D"]
    masks: Float[Tensor, "B T K H W"] | None
    attention: Float[Tensor, "B T K h w"] | None
    frames: Float[Tensor, "B T2 3 H W"]
    slot_frames: Float[Tensor, "B T K 3 H W"] | None
    state: ModelState


class Task(nn.Module, ABC):
    """Base of the tasks.

    `forward` is the loss, so that wrappers for several processes see the computation that they must follow.
    """

    fields: tuple[str, ...] = ("frames",)
    """Fields of the episode file that the loss reads."""
    has_masks: bool = False
    """Whether predictions say which slot owns which pixel."""

    def begin_step(self, step: int) -> None:
        """Told of every optimiser step before its loss, for tasks that change while they are trained.

        Args:
            step: counted from 0; what the task does may depend on nothing else, so that a run resumes exactly.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and further scalars to log."""

    @abstractmethod
    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Prediction:
        """Prediction for whole episodes, or for the next part of a stream."""

    def predict_episode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Prediction:
        """Prediction for whole episodes from what the task may see of them; it belongs to their last frames."""
        return self.predict(frames)


def as_pixels(frames: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T 3 H W"]:
    """Stored frames as floats in [0, 1], channels first."""
    return rearrange(frames, "b t h w c -> b t c h w").to(torch.get_default_dtype()) / 255


def nearest_classes(frames: UInt8[Tensor, "*batch 3"], palette: UInt8[Tensor, "C 3"]) -> Int[Tensor, "*batch"]:
    """Pixel classes of stored frames: the nearest colour of the palette."""
    # one colour after the other, since all differences at once would take much memory
    return torch.stack([(frames.float() - color).square().sum(-1) for color in palette.float()]).argmin(0)
