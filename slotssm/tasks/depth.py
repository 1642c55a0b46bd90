"""Predict the depth of every pixel from the slots of its frame (paper, section 7.5)."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from slotssm.config import ModelConfig, RunConfig
from slotssm.data.clips import spread
from slotssm.data.episodes import EpisodeFile
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.metrics import is_measured
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
from slotssm.tasks.task import Batch, Task, as_pixels, check_scaling

DEPTH = "depth"
MOST_EPISODES = 1000
"""Number of episodes that depth is normalised by, at most: a start must not read a data set of any size."""
MARGIN = 2.0
"""Predicted depths are at most this factor outside the range of the training split."""


class DepthConfig(BroadcastDecoderConfig, FrameEncoderConfig):
    """Predict depth from the slots of every frame: CNN tokens, spatial broadcast decoder, mean squared error."""

    kind: Literal["depth"] = "depth"
    space: Literal["log", "inverse"] = "log"
    """What the squared error is of: the logarithm of depth, in which far and near errors of the same ratio count
    alike, or inverse depth, in which near pixels count most. Either is normalised to mean 0 and variance 1 over the
    measured pixels of the training split, or of 1,000 episodes spread over it."""


@register_task("depth", DepthConfig)
class Depth(Task):
    """CNN tokens → slots → spatial broadcast decoder with one depth channel; squared error over measured pixels.

    Pixels whose depth is 0, negative or not finite were not measured and do not take part. The statistics by which
    depth is normalised are those of the training split, and saved with the weights (part `scale`), so that scores on
    other data use the same.

    Args:
        config: encoder, decoder, and the space of the loss.
        model: the sequence model over slots; one step is one frame.
        model_config: its configuration.
        data: size of the frames.
    """

    fields = ("frames", DEPTH)
    validated = ("depth-mse", "log-depth-mse", "abs-rel", "fg-ari", "miou")

    def __init__(self, config: DepthConfig, model: SlotModel, model_config: ModelConfig, data: DataSpec) -> None:
        super().__init__()
        self.encoder = frame_encoder(config, model_config, data)
        self.model = model
        self.decoder = broadcast_decoder(config, model_config.slot_dim, data, num_channels=1)
        self.scale = DepthScale(config.space)
        self.outputs = frozenset({"slots", "masks", DEPTH}) | ({"attention"} if model.gives_attention else set())

    @classmethod
    def check(cls, run: RunConfig, data: DataSpec) -> None:
        """Refuse data without depth, and frames whose sides the scale factors do not divide."""
        task = run.task
        assert isinstance(task, DepthConfig)
        if data.depth is None:
            raise InputError(
                "task 'depth' needs depth maps, which these data do not have; import them with depth, or generate "
                "'tabletop'"
            )
        check_scaling(data, task.encoder_channels, task.encoder_downsample, task.decoder_upsampling)

    def fit_statistics(self, episodes: EpisodeFile, split: str, num_episodes: int) -> None:
        """Take mean, variance and range of depth from the training split, or from `MOST_EPISODES` spread over it.

        Raises:
            InputError: no pixel of them was measured.
        """
        chosen = spread(num_episodes, MOST_EPISODES)
        if not self.scale.fit(episodes.read(split, DEPTH, index) for index in chosen):
            raise InputError(f"{episodes.path}: no pixel of {split}/{DEPTH} has a depth that is a positive number")

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of normalised depth over the measured pixels of the batch; 0 if there are none."""
        slots = self.model(self.encoder(as_pixels(batch["frames"]))).slots
        values = rearrange(
            self.decoder(rearrange(slots, "b t k d -> (b t) k d")), "(b t) 1 h w -> b t h w", b=len(slots)
        )
        target, known = self.scale.normalized(batch[DEPTH])
        errors = (values - target).square()
        return torch.where(known, errors, 0).sum() / known.sum().clamp(min=1), {}

    def predict(self, frames: UInt8[Tensor, "B T H W 3"], state: ModelState | None = None) -> Outputs:
        """Depth in the unit of the training data, and masks, for episodes or streams."""
        output = self.model(self.encoder(as_pixels(frames)), state)
        values, masks = self._decode(output.slots)
        attention = attention_maps(output.attention, self.encoder.grid, self.model.null_slot)
        return Outputs(
            output.state, slots=output.slots, masks=masks, attention=attention, depth=self.scale.depth(values)
        )

    def _decode(self, slots: Float[Tensor, "B T K D"]) -> tuple[Float[Tensor, "B T H W"], Float[Tensor, "B T K H W"]]:
        """Normalised depth, blended from that of the slots, and the weights of the slots."""
        values, _, masks = self.decoder.decompose(rearrange(slots, "b t k d -> (b t) k d"))
        steps = slots.shape[1]
        return rearrange(values, "(b t) 1 h w -> b t h w", t=steps), rearrange(
            masks, "(b t) k h w -> b t k h w", t=steps
        )


class DepthScale(nn.Module):
    """Depth in the space of the loss, with mean 0 and variance 1 over the pixels that it was fitted to.

    Args:
        space: `log` or `inverse`.

    Attributes:
        mean: mean of the logarithm of depth, or of inverse depth.
        std: its standard deviation; 1 if all depths are equal.
        nearest: smallest depth.
        farthest: largest depth.
    """

    mean: Tensor
    std: Tensor
    nearest: Tensor
    farthest: Tensor

    def __init__(self, space: Literal["log", "inverse"]) -> None:
        super().__init__()
        self.space = space
        for name, value in (("mean", 0.0), ("std", 1.0), ("nearest", 0.01), ("farthest", 100.0)):
            self.register_buffer(name, torch.tensor(value))

    def fit(self, maps: Iterable[np.ndarray]) -> bool:
        """Take the statistics of depth maps, of which one is in memory at a time.

        Args:
            maps: depth [...] of any shape; what was not measured does not count.

        Returns:
            Whether anything was measured; otherwise the statistics stay what they were.
        """
        count, mean, squares, nearest, farthest = 0, 0.0, 0.0, float("inf"), 0.0
        for each in maps:
            known = each[is_measured(each)].astype(np.float64)
            if not known.size:
                continue
            values = np.log(known) if self.space == "log" else 1 / known
            # of two parts together (Chan, Golub and LeVeque 1979), without the cancellation of sums of squares
            shift, total = values.mean() - mean, count + len(values)
            squares += np.square(values - values.mean()).sum() + shift**2 * count * len(values) / total
            mean, count = mean + shift * len(values) / total, total
            nearest, farthest = min(nearest, known.min()), max(farthest, known.max())
        if count:
            std = float(np.sqrt(squares / count))
            found = mean, std if std > 1e-12 else 1.0, nearest, farthest
            for buffer, value in zip((self.mean, self.std, self.nearest, self.farthest), found, strict=True):
                buffer.fill_(float(value))
        return count > 0

    def normalized(self, depth: Float[Tensor, "*batch"]) -> tuple[Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Normalised depth, 0 where it was not measured, and whether it was measured."""
        known = torch.isfinite(depth) & (depth > 0)
        safe = torch.where(known, depth, 1.0)
        values = safe.log() if self.space == "log" else safe.reciprocal()
        return torch.where(known, (values - self.mean) / self.std, 0.0), known

    def depth(self, values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Depth of normalised values, within a factor of `MARGIN` of the range that was fitted."""
        scaled = values.to(torch.promote_types(values.dtype, torch.float32)) * self.std + self.mean
        low, high = self.nearest / MARGIN, self.farthest * MARGIN
        if self.space == "log":
            return scaled.clamp(low.log(), high.log()).exp()
        return scaled.clamp(high.reciprocal(), low.reciprocal()).reciprocal()
